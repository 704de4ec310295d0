package proxy

// sockets makes the sockets of one configuration. Its zero value makes ordinary ones.
type sockets struct {
	mark             uint32 // SO_MARK of each; 0: none, where we lack the privilege and nothing needs it
	mayBeTransparent bool   // the process has the privilege
}
