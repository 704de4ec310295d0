//go:build linux

package main

// peerSubjects are other people's proxies.
var peerSubjects []subject
