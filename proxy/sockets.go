package proxy

import (
	"net"
	"time"
)

// keepAlive is for control connections: long transfers leave them silent for hours, and other people's state tables
// forget the silent. A minute is below every time-out seen in the field.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 30 * time.Second, Count: 4}

// sockets makes the sockets of one configuration. Its zero value makes ordinary ones.
type sockets struct {
	mark             uint32 // SO_MARK of each; 0: none, where we lack the privilege and nothing needs it
	mayBeTransparent bool   // the process has the privilege
}
