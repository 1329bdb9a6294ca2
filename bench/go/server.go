//go:build ignore

// Go's net/http as an HTTP/2 server for benches: small answers, and content in both directions.
//
//	/small           13 octets
//	/items/WHATEVER  2 octets, and the field x-item that says WHATEVER
//	/octets/COUNT    so many octets
//	/sink            reads the content, and answers how many octets it was
//	/sink/crc        the same, and their CRC-32
//
// What the content is, answering.py says: its BLOCK again and again.
package main

import (
	"flag"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const streamsMax = 1000
const pieceOctets = 65536

// The process that started this one may be gone without having said so.
func endWithParent() {
	parent := os.Getppid()
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(0)
}

func small(writer http.ResponseWriter, request *http.Request) {
	fields := writer.Header()
	fields.Set("Content-Type", "text/plain")
	fields.Set("Cache-Control", "max-age=3600")
	io.WriteString(writer, "a small file\n")
}

func item(writer http.ResponseWriter, request *http.Request) {
	fields := writer.Header()
	fields.Set("Content-Type", "text/plain")
	fields.Set("Cache-Control", "max-age=3600")
	fields.Set("X-Item", strings.TrimPrefix(request.URL.Path, "/items/"))
	io.WriteString(writer, "ok")
}

func octets(writer http.ResponseWriter, request *http.Request) {
	rest, err := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/octets/"))
	if err != nil {
		http.NotFound(writer, request)
		return
	}
	writer.Header().Set("Content-Length", strconv.Itoa(rest))
	writer.Header().Set("Content-Type", "application/octet-stream")
	piece := block
	for rest > 0 {
		if rest < len(piece) {
			piece = piece[:rest]
		}
		written, err := writer.Write(piece)
		if err != nil {
			return
		}
		rest -= written
	}
}

// newBlock makes what the content is made of.
func newBlock() []byte {
	made := make([]byte, pieceOctets)
	for index := range made {
		made[index] = byte(index % 251)
	}
	return made
}

var block = newBlock()

func sink(writer http.ResponseWriter, request *http.Request) {
	taken := 0
	withCRC := strings.HasSuffix(request.URL.Path, "/crc")
	var crc uint32
	piece := make([]byte, pieceOctets)
	for {
		read, err := request.Body.Read(piece)
		taken += read
		if withCRC {
			crc = crc32.Update(crc, crc32.IEEETable, piece[:read])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	answer := strconv.Itoa(taken)
	if withCRC {
		answer += " " + strconv.FormatUint(uint64(crc), 10)
	}
	io.WriteString(writer, answer)
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	cert := flag.String("cert", "", "certificate file, PEM; none: cleartext")
	key := flag.String("key", "", "private key file, PEM")
	flag.Parse()
	go endWithParent()

	mux := http.NewServeMux()
	mux.HandleFunc("/small", small)
	mux.HandleFunc("/items/", item)
	mux.HandleFunc("/octets/", octets)
	mux.HandleFunc("/sink", sink)
	mux.HandleFunc("/sink/crc", sink)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr:      *address,
		Handler:   mux,
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: streamsMax},
	}
	if *cert == "" {
		log.Fatal(server.ListenAndServe())
	}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}
