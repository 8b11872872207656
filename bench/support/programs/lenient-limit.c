/*
 * Starts a program for which every wish to raise its limit of open files comes true, without any effect:
 *
 *     lenient-limit PROGRAM [ARGUMENT]…
 *
 * kube-proxy's userspace mode asks for 64,000 open files and ends where it may not have them. Where the hard limit is
 * lower and cannot be raised this lets it run, unmodified, under the limit that its peers have as well: a seccomp
 * filter answers setrlimit, and prlimit64 where it sets RLIMIT_NOFILE, with 0. The soft limit is raised to the hard
 * one first. What a filter of this kind always allows costs no run of it: the kernel keeps those system calls in a
 * bitmap.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "which architecture do system calls have here?"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define WHEN(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (skip), 0)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, (action))

/* Both architectures are little-endian: an argument's lower half comes first. */
static struct sock_filter filter[] = {
    LOAD(arch),
    UNLESS(ARCHITECTURE, 10),
    LOAD(nr),
    WHEN(__NR_setrlimit, 7),
    UNLESS(__NR_prlimit64, 7),
    LOAD(args[1]),
    UNLESS(RLIMIT_NOFILE, 5),
    /* The new limit: null where it is only asked for. */
    LOAD(args[2]),
    UNLESS(0, 2),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + 4),
    WHEN(0, 1),
    ANSWER(SECCOMP_RET_ERRNO | 0),
    ANSWER(SECCOMP_RET_ALLOW),
};

static int fail(const char *what) {
  fprintf(stderr, "lenient-limit: %s: %s\n", what, strerror(errno));
  return 127;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "lenient-limit PROGRAM [ARGUMENT]...\n");
    return 2;
  }
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return fail("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return fail("setrlimit");
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail("no_new_privs");
  /* Without SPEC_ALLOW some kernels would make the program pay for mitigations that its peers do not pay for. */
  if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) != 0)
    return fail("seccomp");
  execvp(argv[1], argv + 1);
  return fail(argv[1]);
}
