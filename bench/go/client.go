//go:build ignore

// Go's net/http as an HTTP/2 client for benches, told what to do on its standard input:
//
//	gets COUNT STREAMS   so many GETs, STREAMS at once; prints the nanoseconds they took
//	each COUNT           one after the other; prints the nanoseconds of each
//	down OCTETS          GET content of that length; prints the nanoseconds it took
//	up OCTETS            POST content of that length; prints the nanoseconds it took;
//	                     the server answers how many octets came
//
// All on one connection.  Each response's status and content are checked; what is not right ends
// the program.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const pieceOctets = 65536

var (
	url       = flag.String("url", "", "what to GET or to POST to")
	items     = flag.Int64("items", 0, "the URL goes on with a number below that, and a query of its own")
	expect    = flag.String("expect", "", "the content of each response to a GET")
	token     = flag.String("token", "", "sent as the field authorization")
	cacert    = flag.String("cacert", "", "file of trusted certificates, PEM")
	number    atomic.Int64
	connected atomic.Int64
	client    *http.Client
)

func newClient() *http.Client {
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
	dialer := &net.Dialer{}
	return &http.Client{
		Transport: &http.Transport{
			Protocols:       protocols,
			TLSClientConfig: &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if connected.Add(1) > 1 {
					log.Fatal("a second connection")
				}
				return dialer.DialContext(ctx, network, address)
			},
		},
	}
}

func nextRequest() *http.Request {
	target := *url
	if *items > 0 {
		value := number.Add(1)
		target += strconv.FormatInt(value%*items, 10) + "?" + strconv.FormatInt(value, 10)
	}
	request, err := http.NewRequest("GET", target, nil)
	if err != nil {
		log.Fatal(err)
	}
	if *token != "" {
		request.Header.Set("Authorization", *token)
	}
	return request
}

// get makes one GET; content is where its response's content goes, used again each time.
func get(content []byte) {
	response, err := client.Do(nextRequest())
	if err != nil {
		log.Fatal(err)
	}
	octets, err := io.ReadFull(response.Body, content)
	if err != io.ErrUnexpectedEOF { // it is longer by one than what is expected
		log.Fatalf("content too long, or cut off: %v", err)
	}
	response.Body.Close()
	if response.StatusCode != 200 || string(content[:octets]) != *expect {
		log.Fatalf("%d %q", response.StatusCode, content[:octets])
	}
}

// warmUp makes the connection: requests made at once, before it is there, would dial several.
func warmUp() {
	if connected.Load() == 0 {
		get(make([]byte, len(*expect)+1))
	}
}

func gets(count, streams int) time.Duration {
	warmUp()
	var left atomic.Int64
	left.Store(int64(count))
	var all sync.WaitGroup
	begun := time.Now()
	for range streams {
		all.Go(func() {
			content := make([]byte, len(*expect)+1)
			for left.Add(-1) >= 0 {
				get(content)
			}
		})
	}
	all.Wait()
	return time.Since(begun)
}

func each(count int) []string {
	warmUp()
	content := make([]byte, len(*expect)+1)
	took := make([]string, count)
	for index := range took {
		begun := time.Now()
		get(content)
		took[index] = strconv.FormatInt(time.Since(begun).Nanoseconds(), 10)
	}
	return took
}

func down(octets int64) time.Duration {
	piece := make([]byte, pieceOctets)
	begun := time.Now()
	response, err := client.Get(*url)
	if err != nil {
		log.Fatal(err)
	}
	var taken int64
	for {
		read, err := response.Body.Read(piece)
		taken += int64(read)
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	took := time.Since(begun)
	if response.StatusCode != 200 || response.ContentLength != octets || taken != octets {
		log.Fatalf("%d, %d octets of %d", response.StatusCode, taken, response.ContentLength)
	}
	return took
}

// zeros gives zeros without copying them anywhere first.
type zeros struct{}

func (zeros) Read(piece []byte) (int, error) {
	clear(piece)
	return len(piece), nil
}

func up(octets int64) time.Duration {
	begun := time.Now()
	request, err := http.NewRequest("POST", *url, io.LimitReader(zeros{}, octets))
	if err != nil {
		log.Fatal(err)
	}
	request.ContentLength = octets
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	took := time.Since(begun)
	if err != nil || response.StatusCode != 200 ||
		!bytes.Equal(answer, strconv.AppendInt(nil, octets, 10)) {
		log.Fatalf("%d %q %v", response.StatusCode, answer, err)
	}
	return took
}

func argument(words []string, index int) int {
	if index >= len(words) {
		log.Fatalf("too few words: %q", words)
	}
	value, err := strconv.Atoi(words[index])
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	flag.Parse()
	client = newClient()
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		words := strings.Fields(orders.Text())
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "gets":
			fmt.Println(gets(argument(words, 1), argument(words, 2)).Nanoseconds())
		case "each":
			fmt.Println(strings.Join(each(argument(words, 1)), " "))
		case "down":
			fmt.Println(down(int64(argument(words, 1))).Nanoseconds())
		case "up":
			fmt.Println(up(int64(argument(words, 1))).Nanoseconds())
		default:
			log.Fatalf("no order %q", words[0])
		}
	}
}
