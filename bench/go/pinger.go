//go:build ignore

// Go's net/http pings one HTTP/2 connection: for each line "N" on stdin it sends N PINGs, one
// after the other, and answers with one line: the octets a second that went beside them, and the
// nanoseconds each PING took.  It ends when stdin does.
//
// With -load upload or download each line has a connection of its own, on which a POST to /discard
// or a GET of /endless runs at full speed meanwhile.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const pieceOctets = 64 * 1024
const fullSpeedAfter = 8 * 1024 * 1024 // octets

var moved atomic.Int64
var stopped atomic.Bool

// endless is a body that goes on until `stopped`.
type endless struct{}

func (endless) Read(piece []byte) (int, error) {
	if stopped.Load() {
		return 0, io.EOF
	}
	moved.Add(int64(len(piece)))
	return len(piece), nil
}

// discard counts what is written to it.
type discard struct{}

func (discard) Write(piece []byte) (int, error) {
	moved.Add(int64(len(piece)))
	if stopped.Load() {
		return 0, io.ErrClosedPipe
	}
	return len(piece), nil
}

func transfer(connection *http.ClientConn, base *url.URL, load string) {
	method, path := "GET", "/endless"
	var body io.Reader
	if load == "upload" {
		method, path, body = "POST", "/discard", endless{}
	}
	request, err := http.NewRequest(method, base.JoinPath(path).String(), body)
	if err != nil {
		log.Fatal(err)
	}
	response, err := connection.RoundTrip(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	_, err = io.CopyBuffer(discard{}, response.Body, make([]byte, pieceOctets))
	if err != nil && !stopped.Load() {
		log.Fatal(err)
	}
}

func ping(connection *http.ClientConn, times []time.Duration) {
	request := &http.Request{Method: ":ping"}
	for index := range times {
		begun := time.Now()
		if _, err := connection.RoundTrip(request); err != nil {
			log.Fatal(err)
		}
		times[index] = time.Since(begun)
	}
}

func main() {
	address := flag.String("url", "", "the server's, without a path")
	cacert := flag.String("cacert", "", "file of trusted certificates, PEM; for https")
	load := flag.String("load", "none", "beside the PINGs: none, upload or download")
	flag.Parse()

	base, err := url.Parse(*address)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if *cacert != "" {
		pem, err := os.ReadFile(*cacert)
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			log.Fatalf("no certificate in %s: %v", *cacert, err)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{RootCAs: roots},
	}
	connect := func() *http.ClientConn {
		connection, err := transport.NewClientConn(context.Background(), base.Scheme, base.Host)
		if err != nil {
			log.Fatal(err)
		}
		return connection
	}

	connection := connect()
	output := bufio.NewWriter(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count, err := strconv.Atoi(lines.Text())
		if err != nil {
			log.Fatal(err)
		}
		times := make([]time.Duration, count)
		var rate float64
		if *load == "none" {
			ping(connection, times)
		} else {
			rate = pingBeside(connect(), base, *load, times)
		}
		fmt.Fprintf(output, "%.0f", rate)
		for _, one := range times {
			fmt.Fprintf(output, " %d", one.Nanoseconds())
		}
		fmt.Fprintln(output)
		output.Flush()
	}
}

// pingBeside pings while a transfer goes on, and returns the octets a second of that.
func pingBeside(
	connection *http.ClientConn, base *url.URL, load string, times []time.Duration,
) float64 {
	moved.Store(0)
	stopped.Store(false)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		transfer(connection, base, load)
	}()
	for moved.Load() < fullSpeedAfter {
		time.Sleep(time.Millisecond)
	}
	before, begun := moved.Load(), time.Now()
	ping(connection, times)
	rate := float64(moved.Load()-before) / time.Since(begun).Seconds()
	stopped.Store(true)
	<-ended
	connection.Close()
	return rate
}
