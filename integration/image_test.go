//go:build linux

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestImage: the Dockerfile makes an image, and a container of it is an explicit proxy. The image that it begins with is not to be had
// from Debian, so one is made by that name: a bare Debian, with the Go that the tests are built by.
func TestImage(t *testing.T) {
	need(t, "buildah", "curl")
	debian := unpackedSystem(t, "root")
	file := filepath.Join(moduleRoot(t), "cmd/package/Dockerfile")
	_, after, _ := strings.Cut(string(readAll(file)), "\nFROM ")
	base, _, ok := strings.Cut(after, " AS build\n")
	if !ok {
		t.Fatal("the Dockerfile has another form")
	}
	l := newLab(t)
	containers := filepath.Join(l.Dir, "containers")
	storage := []string{"--root", containers, "--runroot", containers + "-run", "--storage-driver", "vfs"}
	buildah := func(args ...string) string {
		t.Helper()
		command := exec.Command("buildah", append(storage, args...)...)
		var said strings.Builder
		command.Stderr = &said
		out, err := command.Output()
		if err != nil {
			t.Fatalf("buildah %s: %v: %s%s", strings.Join(args, " "), err, out, said.String())
		}
		return strings.TrimSpace(string(out))
	}
	goenv := func(name string) string {
		t.Helper()
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}

	bare := buildah("from", "scratch")
	buildah("add", "--quiet", bare, debian, "/")
	buildah("add", "--quiet", bare, "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
	config := []string{"config", "--env", "PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--env", "GOPATH=/go"}
	for _, name := range []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GOTOOLCHAIN"} {
		config = append(config, "--env", name+"="+goenv(name))
	}
	buildah(append(config, bare)...)
	buildah("commit", "--quiet", "--rm", bare, "docker.io/library/"+base)

	build := []string{"build", "--quiet", "--isolation", "chroot", "--pull=never", "--file", file, "--tag", "ftpalg-image", "--build-arg", "VERSION=1.0.0"}
	for from, to := range map[string]string{goenv("GOROOT"): "/usr/local/go:ro", goenv("GOMODCACHE"): "/go/pkg/mod", goenv("GOCACHE"): "/root/.cache/go-build"} {
		build = append(build, "--volume", from+":"+to)
	}
	buildah(append(build, moduleRoot(t))...)

	container := buildah("from", "--pull=never", "localhost/ftpalg-image")
	if got := buildah("inspect", "--format", "{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}", container); got != "65534:65534 [/usr/sbin/ftpalg] [run]" {
		t.Errorf("the image is %s", got)
	}
	run := append(storage, "run", "--isolation", "chroot", container, "/usr/sbin/ftpalg")
	if said, err := l.Firewall.Command(t.Context(), "buildah", append(run, "version")...).CombinedOutput(); err != nil || !strings.HasPrefix(string(said), "ftpalg 1.0.0 (go") {
		t.Errorf("its version: %v, %s", err, said)
	}

	// As its first lines say, with the host's network.
	s := startServer(t, l, nil)
	etc := filepath.Join(l.Dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	g := &gateway{config: filepath.Join(etc, "ftpalg.yaml"), lab: l}
	g.configure(tunnelProxy)
	command := append(storage, "run", "--isolation", "chroot", "--volume", etc+":/etc/ftpalg:ro", container, "/usr/sbin/ftpalg", "run", "-c", "/etc/ftpalg/ftpalg.yaml")
	g.run(l.Firewall.Command(context.Background(), "buildah", command...))
	if err := os.WriteFile(filepath.Join(s.Home, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := l.Client.Command(t.Context(), "curl", "-sS", "-m", "20", "-u", fmt.Sprintf("%s@%v:%s", ftpUser, s.Addr[v4], ftpPassword), fmt.Sprintf("ftp://%v/file", proxyAt(v4))).CombinedOutput()
	if err != nil || string(got) != "hello" {
		t.Errorf("through the container: %v, %s", err, got)
	}
	g.Stop()
	g.checkClean()
}
