//go:build ignore

// The other end of a transfer at full speed: POST /discard takes what comes, GET /endless gives
// octets until the client has enough.  In cleartext by prior knowledge, with windows as large as
// net/http allows, so that nothing but the client and the machine holds an upload up.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
)

const pieceOctets = 64 * 1024
const windowOctets = 4*1024*1024 - 1

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()

	http.HandleFunc("POST /discard", func(_ http.ResponseWriter, request *http.Request) {
		io.CopyBuffer(struct{ io.Writer }{io.Discard}, request.Body, make([]byte, pieceOctets))
	})
	http.HandleFunc("GET /endless", func(response http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, pieceOctets)
		for {
			if _, err := response.Write(piece); err != nil {
				return
			}
		}
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr:      *address,
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: windowOctets,
			MaxReceiveBufferPerStream:     windowOctets,
		},
	}
	log.Fatal(server.ListenAndServe())
}
