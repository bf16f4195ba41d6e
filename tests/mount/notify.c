/* SPDX-License-Identifier: MIT */
/*
 * mount_notify SOCKET: systemd's end of sd_notify(3). Prints every line it is sent, until it is
 * ended; says "listening" when it can be sent to.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char state[4096];
	ssize_t n;

	if (argc != 2 || strlen(argv[1]) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "usage: mount_notify SOCKET\n");
		return 2;
	}
	strcpy(addr.sun_path, argv[1]);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		perror(argv[1]);
		return 1;
	}
	puts("listening");
	fflush(stdout);
	while ((n = recv(fd, state, sizeof(state) - 1, 0)) >= 0) {
		state[n] = '\0';
		printf("%s%s", state, n && state[n - 1] == '\n' ? "" : "\n");
		fflush(stdout);
	}
	return 1;
}
