//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// The test program is also run by the tests, in a namespace, to play one of these roles. Its environment says which.
const roleVariable = "FTPALG_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"ftpserverlib": serveFtpserverlib,
	"jlaffaye":     runJlaffaye,
	"crowd":        runCrowd,
	"tiny":         serveTiny,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		code := m.Run()
		os.RemoveAll(buildDir())
		os.Exit(code)
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// role is a command that runs the test program in a role.
func (n *namespace) role(ctx context.Context, name string, args ...string) *exec.Cmd {
	n.lab.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.lab.t.Fatal(err)
	}
	command := n.Command(ctx, self, args...)
	command.Env = append(command.Env, roleVariable+"="+name)
	return command
}
