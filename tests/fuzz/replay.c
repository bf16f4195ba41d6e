/* SPDX-License-Identifier: MIT */
/* Runs a fuzzer's inputs without libFuzzer: every file named, and those of every folder named. */
#include "fuzz.h"
#include <dirent.h>
#include <sys/stat.h>

static unsigned int nruns;

static void run_file(const char *name)
{
	FILE *f = fopen(name, "rb");
	uint8_t *data;
	long size;

	if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET))
		fuzz_fail("%s cannot be read", name);
	/* Exactly as long as the input, so that a sanitizer sees what is read beyond it. */
	data = malloc(size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		fuzz_fail("%s cannot be read", name);
	fclose(f);
	fprintf(stderr, "%s\n", name); /* which one it was, if this ends here */
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	nruns++;
}

static void run_folder(const char *name)
{
	struct dirent **entries;
	int n = scandir(name, &entries, NULL, alphasort);

	if (n < 0)
		fuzz_fail("%s cannot be read", name);
	for (int i = 0; i < n; i++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", name, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			run_file(path);
		free(entries[i]);
	}
	free(entries);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st))
			fuzz_fail("%s is not there", argv[i]);
		if (S_ISDIR(st.st_mode))
			run_folder(argv[i]);
		else
			run_file(argv[i]);
	}
	printf("%u inputs\n", nruns);
	return nruns ? 0 : 1;
}
