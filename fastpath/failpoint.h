/* Named places where a process can be killed or stopped, for tests that ask what it leaves behind there.
 *
 * In the engine a failpoint is nothing at all. Only a build with -DTICKPATH_FAILPOINTS, which the
 * tests make for themselves in a folder of their own, looks at TICKPATH_FAILPOINT=<name>:<n> and
 * kills its process the n-th time it passes the named place; with <name>:<n>:stop it stops there. */
#ifndef TICKPATH_FAILPOINT_H
#define TICKPATH_FAILPOINT_H

#ifdef TICKPATH_FAILPOINTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void failpoint(const char *name) {
    static long passed = 0; /* of the one named place */
    const char *armed = getenv("TICKPATH_FAILPOINT");
    size_t length = strlen(name);
    if (armed == NULL || strncmp(armed, name, length) != 0 || armed[length] != ':')
        return;
    if (++passed == atol(armed + length + 1))
        kill(getpid(), strstr(armed, ":stop") != NULL ? SIGSTOP : SIGKILL);
}

#else

#define failpoint(name) ((void)(name))

#endif

#endif
