package control

import "context"

// Accounts are those of the proxy, as one explicit session asks about them. They are asked from Run's goroutine.
type Accounts interface {
	// Known reports whether there is an account of the name. It settles what a client means that could mean two things; it is
	// never an answer.
	Known(name string) bool
	// Login logs in to the proxy, in the place of whoever has before. It may take as long as ctx, because those who
	// guess are made to wait. The refusal is what the client is told; nil: it is in.
	Login(ctx context.Context, name, password string) *Refusal
}
