//go:build ignore

// Go's net/http as an HTTP/2 server: a folder, with prior knowledge or, given a certificate, TLS.
// It PINGs a client that is silent for idlePing and closes the connection when no ack comes.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"
)

const idlePing = 300 * time.Millisecond
const pingAckWait = 500 * time.Millisecond

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	root := flag.String("root", ".", "the folder to serve")
	cert := flag.String("cert", "", "certificate file, PEM; none: no TLS")
	key := flag.String("key", "", "private key file, PEM")
	flag.Parse()

	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr:      *address,
		Handler:   http.FileServer(http.Dir(*root)),
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{SendPingTimeout: idlePing, PingTimeout: pingAckWait},
	}
	if *cert == "" {
		log.Fatal(server.ListenAndServe())
	}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}
