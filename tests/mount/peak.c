/* SPDX-License-Identifier: MIT */
/*
 * mount_peak FILE COMMAND [ARGUMENT...]: runs the command and writes the most memory that it had
 * resident, in KiB, to FILE. Its exit status is the command's; 125: not run, 128 and more: a signal.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rusage usage;
	FILE *file;
	pid_t pid;
	int status;

	if (argc < 3) {
		fprintf(stderr, "usage: mount_peak FILE COMMAND [ARGUMENT...]\n");
		return 125;
	}
	pid = fork();
	if (pid == 0) {
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(125);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
		perror("mount_peak");
		return 125;
	}
	file = fopen(argv[1], "w");
	if (!file || fprintf(file, "%ld\n", usage.ru_maxrss) < 0 || fclose(file)) {
		perror(argv[1]);
		return 125;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
