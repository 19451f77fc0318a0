"""The seccomp profile RuntimeDefault of this node. Pure.

What administers the machine, or lies outside of what namespaces separate, is refused, unless the container has the
capability it takes. It says what is refused, not what is allowed: programs get every other system call, also such as
newer kernels have; the kernel's own checks of capabilities stand behind it. See seccomp(2) and capabilities(7).
"""

from __future__ import annotations

from collections.abc import Collection

from kubesvc.api.meta import JSON
from kubesvc.node.seccomp import ARCHITECTURES

EPERM, ENOSYS = 1, 38  # asm-generic/errno.h

# capabilities, of which one is needed -> system calls
NEEDING: dict[tuple[str, ...], tuple[str, ...]] = {
    ("SYS_ADMIN",): (
        "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
        "move_mount", "open_tree", "pivot_root", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
        "swapoff", "swapon", "umount", "umount2", "unshare",
    ),
    ("SYS_ADMIN", "BPF"): ("bpf",),
    ("SYS_ADMIN", "PERFMON"): ("perf_event_open",),
    ("SYS_ADMIN", "SYSLOG"): ("syslog",),
    ("SYS_BOOT",): ("kexec_file_load", "kexec_load", "reboot"),
    ("SYS_CHROOT",): ("chroot",),
    ("SYS_MODULE",): ("create_module", "delete_module", "finit_module", "init_module", "query_module"),
    ("SYS_NICE",): ("mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    ("SYS_PACCT",): ("acct",),
    ("SYS_PTRACE",): ("kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"),
    ("SYS_RAWIO",): ("ioperm", "iopl"),
    ("SYS_TIME",): ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    ("SYS_TTY_CONFIG",): ("vhangup",),
    ("DAC_READ_SEARCH",): ("open_by_handle_at",),
}  # fmt: skip
# Keys aren't separated by namespaces; io_uring does what other calls do past every filter; the rest is of the past.
NEVER = (
    "_sysctl", "add_key", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl",
    "nfsservctl", "request_key", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip
# linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
NEW_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
AF_VSOCK = 40  # linux/socket.h: the hypervisor's, whatever the network namespace


def build(machine: str, capabilities: Collection[str]) -> JSON:
    """The profile for a container with these capabilities, on a `machine` as uname -m names it."""
    had = {name.removeprefix("CAP_") for name in capabilities}
    refused = [call for needed, calls in NEEDING.items() if not had & set(needed) for call in calls]
    rules = [_refuse(sorted([*refused, *NEVER]))]
    rules.append(_refuse(["socket"], index=0, value=AF_VSOCK, value_two=0, op="SCMP_CMP_EQ"))
    if "SYS_ADMIN" not in had:
        flags = 1 if machine.startswith("s390") else 0  # which argument they are
        rules += [
            _refuse(["clone"], index=flags, value=flag, value_two=flag, op="SCMP_CMP_MASKED_EQ")
            for flag in NEW_NAMESPACES
        ]
        # Its flags are in memory, where no filter looks: C libraries go on with clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    found: JSON = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if machine in ARCHITECTURES:
        found["architectures"] = list(ARCHITECTURES[machine])
    return found


def _refuse(names: list[str], **argument: int | str) -> JSON:
    found: JSON = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}
    if argument:
        found["args"] = [{("valueTwo" if name == "value_two" else name): value for name, value in argument.items()}]
    return found
