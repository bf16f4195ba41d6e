/* SPDX-License-Identifier: MIT */
/*
 * Names of the calls that a thread is in: taken with backtrace(3), named with libdw (elfutils), which
 * knows static functions too, from the symbol table.
 */
#include "lab_private.h"
#include <elfutils/libdwfl.h>
#include <execinfo.h>
#include <string.h>
#include <unistd.h>

int stack_take(void **stack, int max, int skip)
{
	void *all[LAB_STACK + 8];
	int n = backtrace(all, slu_min(max + skip + 1, (int)slu_array_size(all)));

	skip = slu_min(skip + 1, n); /* and this function */
	n = slu_min(n - skip, max);
	memcpy(stack, all + skip, (size_t)n * sizeof(*stack));
	return n;
}

/* Whether a name is one of the C library's thread start, below which there is nothing of ours. */
static bool is_foundation(const char *name)
{
	return !strcmp(name, "start_thread") || !strncmp(name, "__", 2) ||
	       strstr(name, "thread_start") || strstr(name, "clone");
}

void stack_print(FILE *out, void *const *stack, int n)
{
	static const Dwfl_Callbacks callbacks = {.find_elf = dwfl_linux_proc_find_elf,
						 .find_debuginfo = dwfl_standard_find_debuginfo};
	Dwfl *dwfl = dwfl_begin(&callbacks);
	const char *sep = "";

	if (!dwfl || dwfl_linux_proc_report(dwfl, getpid()) || dwfl_report_end(dwfl, NULL, NULL))
		n = 0;
	for (int i = n; i-- > 0;) {
		/* A return address: the call is before it. */
		Dwarf_Addr pc = (Dwarf_Addr)(uintptr_t)stack[i] - 1;
		Dwfl_Module *module = dwfl_addrmodule(dwfl, pc);
		const char *name = module ? dwfl_module_addrname(module, pc) : NULL;

		if (!name || is_foundation(name))
			continue;
		fprintf(out, "%s%s", sep, name);
		sep = " > ";
	}
	fprintf(out, "%s", *sep ? "" : "(no symbols)");
	if (dwfl)
		dwfl_end(dwfl);
}
