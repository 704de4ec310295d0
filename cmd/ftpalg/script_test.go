package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var updateScripts = flag.Bool("update", false, "rewrite what the scripts in testdata compare with")

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"ftpalg": main}) }

// TestScripts runs the program as people do. Besides testscript's own commands the scripts have
//
//	fails CODE ARG...            ftpalg ends with that exit code
//	gateway NAME ARG...          starts ftpalg run ARG... in the background
//	await NAME REGEXP [VAR]      waits until it has logged a line, after those awaited before; VAR is what the group matched
//	signal NAME HUP|INT|TERM|KILL     sends a signal
//	exits NAME CODE              waits until it has ended
//	talk ADDRESS REPLY [SAY REPLY]...  an FTP conversation; each REPLY is a regular expression; SAY may be signal:NAME:TERM
//	hang ADDRESS [REPLY]         connects, and says nothing until the script's end; REPLY is a regular expression of the greeting
//	learn VAR REGEXP             VAR is what the group matched in the last output
//	occupy VAR                   listens on a free port until the script's end; VAR is its address
//	unprivileged CODE FILE ARG... as fails, as nobody; FILE is the configuration
//	lack WHAT                    fails where nothing may be lacking
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *updateScripts,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Values["gateways"] = map[string]*gateway{}
			e.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each program, else
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": fails, "gateway": startGateway, "await": await, "signal": signalGateway, "exits": exits, "talk": talk,
			"occupy": occupy, "hang": hang, "learn": learn, "unprivileged": unprivileged, "lack": lack,
		},
	})
}

// gateway is a program that runs in the background.
type gateway struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu     sync.Mutex
	lines  []string // of its log
	wrote  chan struct{}
	looked int // lines that await has looked at
}

// Write takes what the program logs.
func (g *gateway) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for line := range strings.Lines(string(b)) { // slog writes whole lines
		g.lines = append(g.lines, strings.TrimSuffix(line, "\n"))
	}
	close(g.wrote)
	g.wrote = make(chan struct{})
	return len(b), nil
}

func find(ts *testscript.TestScript, name string) *gateway {
	g := ts.Value("gateways").(map[string]*gateway)[name]
	if g == nil {
		ts.Fatalf("no gateway %s", name)
	}
	return g
}

func usage(ts *testscript.TestScript, neg bool, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func startGateway(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "gateway NAME ARG...")
	path, err := exec.LookPath("ftpalg")
	ts.Check(err)
	g := &gateway{cmd: exec.Command(path, append([]string{"run"}, args[1:]...)...), done: make(chan struct{}), wrote: make(chan struct{})}
	g.cmd.Dir = ts.MkAbs(".")
	g.cmd.Env = append(os.Environ(), "GORACE="+ts.Getenv("GORACE"))
	g.cmd.Stderr = g
	ts.Check(g.cmd.Start())
	go func() { g.cmd.Wait(); close(g.done) }()
	ts.Defer(func() {
		g.cmd.Process.Kill()
		<-g.done
		g.mu.Lock()
		defer g.mu.Unlock()
		ts.Logf("%s logged:\n%s", args[0], strings.Join(g.lines, "\n"))
	})
	ts.Value("gateways").(map[string]*gateway)[args[0]] = g
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 || len(args) == 3, "await NAME REGEXP [VAR]")
	g := find(ts, args[0])
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	for ended := false; ; {
		g.mu.Lock()
		for ; g.looked < len(g.lines); g.looked++ {
			if m := want.FindStringSubmatch(g.lines[g.looked]); m != nil {
				g.looked++
				g.mu.Unlock()
				if len(args) == 3 {
					ts.Setenv(args[2], m[1])
				}
				return
			}
		}
		wrote := g.wrote
		g.mu.Unlock()
		if ended {
			ts.Fatalf("%s ended without logging %s", args[0], args[1])
		}
		select {
		case <-wrote:
		case <-g.done:
			ended = true // once more: it may have written its last
		}
	}
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}

func signalGateway(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 && signals[args[len(args)-1]] != 0, "signal NAME HUP|INT|TERM|KILL")
	ts.Check(find(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "exits NAME CODE")
	g := find(ts, args[0])
	<-g.done
	if got := strconv.Itoa(g.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with %s: %v", args[0], got, g.cmd.ProcessState)
	}
}

func fails(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "fails CODE ARG...")
	checkCode(ts, ts.Exec("ftpalg", args[1:]...), args[0])
}

func checkCode(ts *testscript.TestScript, err error, want string) {
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

// stuck is when a program that says nothing is taken to be stuck; nothing else waits for it.
const stuck = time.Minute

func talk(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2 && len(args)%2 == 0, "talk ADDRESS REPLY [SAY REPLY]...")
	c, err := net.DialTimeout("tcp", args[0], stuck)
	ts.Check(err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(stuck))
	r := bufio.NewReader(c)
	for i := 1; i < len(args); i += 2 {
		if i > 1 {
			if say, ok := strings.CutPrefix(args[i-1], "signal:"); ok {
				name, signal, _ := strings.Cut(say, ":")
				signalGateway(ts, false, []string{name, signal})
			} else {
				fmt.Fprintf(c, "%s\r\n", args[i-1])
			}
		}
		line, err := r.ReadString('\n')
		ts.Check(err)
		if ok, err := regexp.MatchString(args[i], line); !ok {
			ts.Fatalf("heard %q, want %s %v", line, args[i], err)
		}
	}
}

func hang(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1 || len(args) == 2, "hang ADDRESS [REPLY]")
	c, err := net.DialTimeout("tcp", args[0], stuck)
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	if len(args) == 2 {
		c.SetDeadline(time.Now().Add(stuck))
		line, err := bufio.NewReader(c).ReadString('\n')
		ts.Check(err)
		if ok, err := regexp.MatchString(args[1], line); !ok {
			ts.Fatalf("heard %q, want %s %v", line, args[1], err)
		}
	}
}

func learn(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "learn VAR REGEXP")
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	m := want.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no match for %s in stdout", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func occupy(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "occupy VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// unprivileged runs ftpalg as nobody, from a place that nobody can read.
func unprivileged(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 2, "unprivileged CODE FILE ARG...")
	dir, err := os.MkdirTemp("", "ftpalg-nobody")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	path, err := exec.LookPath("ftpalg")
	ts.Check(err)
	for from, to := range map[string]string{path: "ftpalg", ts.MkAbs(args[1]): "config.yaml"} {
		// Were it written by this process, a child that another test starts just then would have it open for a moment, and a
		// program that is open for writing does not run (ETXTBSY).
		ts.Check(exec.Command("cp", "-L", from, filepath.Join(dir, to)).Run())
		ts.Check(os.Chmod(filepath.Join(dir, to), 0o755))
	}
	const nobody = 65534
	cmd := exec.Command(filepath.Join(dir, "ftpalg"), append(args[2:], "--config", "config.yaml")...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	checkCode(ts, cmd.Run(), args[0])
}

// lack fails a script that lacks something if FTPALG_INTEGRATION=1 says that nothing may be lacking. It skips itself else.
func lack(ts *testscript.TestScript, neg bool, args []string) {
	if os.Getenv("FTPALG_INTEGRATION") == "1" {
		ts.Fatalf("not available: %s", strings.Join(args, " "))
	}
}
