package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

// Client asks a running gateway, by its Unix socket, and gives it orders. Errors say what the administrator can do.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a Client of the socket at a path. Nothing is sent yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Sessions are those that run, the oldest first.
func (c *Client) Sessions(ctx context.Context) (ss []Session, err error) {
	return ss, c.ask(ctx, "/v1/sessions", &ss)
}

// Session is one, with its last commands.
func (c *Client) Session(ctx context.Context, id string) (s Session, err error) {
	return s, c.ask(ctx, "/v1/sessions/"+url.PathEscape(id), &s)
}

// Stats are how the gateway is.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.ask(ctx, "/v1/stats", &s)
}

// Kill ends a session and what moves in it.
func (c *Client) Kill(ctx context.Context, id string) error {
	return c.order(ctx, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil)
}

// Drain has the gateway take no more sessions, and end when those that run have had timeouts.drain.
func (c *Client) Drain(ctx context.Context) error {
	return c.order(ctx, http.MethodPost, "/v1/drain", nil)
}

// Reload has it read its configuration again. The error has all that is wrong with it.
func (c *Client) Reload(ctx context.Context) error {
	return c.order(ctx, http.MethodPost, "/v1/reload", nil)
}

// SetLevel sets the level of the log until the next reload.
func (c *Client) SetLevel(ctx context.Context, level string) error {
	return c.order(ctx, http.MethodPut, "/v1/log-level", url.Values{"level": {level}})
}

func (c *Client) ask(ctx context.Context, path string, answer any) error {
	r, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(answer)
}

func (c *Client) order(ctx context.Context, method, path string, form url.Values) error {
	r, err := c.do(ctx, method, path, form)
	if err != nil {
		return err
	}
	return r.Body.Close()
}

func (c *Client) do(ctx context.Context, method, path string, form url.Values) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://ftpalg"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return response, nil
}

// explain says what can be done about a gateway that does not answer.
func (c *Client) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "; is ftpalg running, with admin.socket in its configuration? --socket names another place"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "; the ftpalg that has made this socket has ended"
	case errors.Is(err, fs.ErrPermission):
		hint = "; its directory is closed to this user"
	}
	return fmt.Errorf("%w%s", err, hint)
}
