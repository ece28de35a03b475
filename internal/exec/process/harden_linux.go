package process

import (
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Protect keeps other processes of the server's user from reading this process: its memory, its
// environment (with the keys of models) and its descriptors. The system then writes no core
// dump of it, and only root can attach a debugger. It is for a process that is the server's own.
func Protect() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("commands can read the server's memory and environment: %w", err)
	}
	return nil
}

// restrictThread takes rights from the current thread, and so from the command that it starts:
// no program gains rights when it is executed, and none has the rights to read the memory or the
// environment of other processes.
func restrictThread() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("its rights cannot be restricted: %w", err)
	}
	for _, right := range readingRights {
		// It fails if the kernel does not know the right, or the thread may drop none, and so is
		// not root.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(right), 0, 0, 0)
	}
	if err := dropInheritable(readingRights); err != nil {
		return fmt.Errorf("its rights cannot be restricted: %w", err)
	}
	return nil
}

// readingRights are the rights to read the memory and the environment of other processes.
var readingRights = []int{unix.CAP_SYS_PTRACE, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}

// dropInheritable takes rights out of the current thread's inheritable set, and so out of its
// ambient set. A program that it executes would get them from there (AmbientCapabilities= of
// systemd, an old container engine) although they are not in the bounding set.
func dropInheritable(rights []int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // of this thread
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	before := sets
	for _, right := range rights {
		sets[right/32].Inheritable &^= 1 << (right % 32)
	}
	if sets == before {
		return nil
	}
	return unix.Capset(&header, &sets[0])
}

// startLimited starts the command with limits on the current thread, which the caller has locked.
func startLimited(cmd *osexec.Cmd, limits Limits) error {
	closeOnExec()
	if limits == (Limits{}) {
		return startChild(cmd)
	}
	// A traced process stops before its first instruction, so no part of the command runs without
	// its limits.
	untraced := *cmd
	cmd.SysProcAttr.Ptrace = true
	err := startChild(cmd)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		// A system-call filter or a setting of the kernel forbids to trace, or the server is traced. The command runs for a moment without limits.
		*cmd = untraced
		cmd.SysProcAttr.Ptrace = false
		err = startChild(cmd)
	}
	if err != nil {
		return err
	}
	if err := limitStarted(cmd.Process.Pid, limits, cmd.SysProcAttr); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		forgetChild(cmd.Process.Pid)
		return fmt.Errorf("its limits cannot be set: %w", err)
	}
	return nil
}

// limitStarted sets the limits of a process that was started. One that is traced stops for it.
func limitStarted(pid int, limits Limits, attr *syscall.SysProcAttr) error {
	if attr.Ptrace {
		if err := waitStopped(pid); err != nil {
			return err
		}
	}
	err := setLimits(pid, limits)
	if errors.Is(err, unix.EPERM) && attr.Credential != nil {
		err = asRealUser(attr.Credential, func() error { return setLimits(pid, limits) })
	}
	if err != nil || !attr.Ptrace {
		return err
	}
	return unix.PtraceDetach(pid)
}

// waitStopped waits until a traced process has stopped, or was killed. Its exit status is left to
// os/exec.
func waitStopped(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func setLimits(pid int, limits Limits) error {
	for resource, limit := range map[int]int64{unix.RLIMIT_DATA: limits.Memory, unix.RLIMIT_NPROC: limits.Processes} {
		if limit <= 0 {
			continue
		}
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: uint64(limit), Max: uint64(limit)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// asRealUser calls do while the current thread, which is locked, has the user as its real user.
// Root without CAP_SYS_RESOURCE, as in a container, may not set the limits of other users. The
// raw calls change this thread only, and its effective user stays root.
func asRealUser(user *syscall.Credential, do func() error) error {
	const same = ^uintptr(0)
	set := func(call, id uintptr) error {
		if _, _, errno := unix.RawSyscall(call, id, same, same); errno != 0 {
			return errno
		}
		return nil
	}
	uid, gid := os.Getuid(), os.Getgid()
	err := set(unix.SYS_SETRESGID, uintptr(user.Gid))
	if err == nil {
		err = set(unix.SYS_SETRESUID, uintptr(user.Uid))
	}
	if err == nil {
		err = do()
	}
	return errors.Join(err, set(unix.SYS_SETRESUID, uintptr(uid)), set(unix.SYS_SETRESGID, uintptr(gid)))
}

const limitsSupported = true

// closeOnExec marks the descriptors that this process has inherited, so that no command inherits
// them in turn. The descriptors that Go opens are marked already.
func closeOnExec() {
	if unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	dir, err := os.Open("/proc/self/fd") // an older kernel
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
