//go:build ignore

// Go's net/http as an HTTP/2 client: GET one URL, print protocol, status and the body's SHA-256.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	cacert := flag.String("cacert", "", "file of trusted certificates, PEM")
	flag.Parse()

	roots := x509.NewCertPool()
	if *cacert != "" {
		pem, err := os.ReadFile(*cacert)
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			log.Fatalf("no certificate in %s: %v", *cacert, err)
		}
	}
	// Without HTTP/1, http:// URLs are asked for with prior knowledge.
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Protocols:       protocols,
			TLSClientConfig: &tls.Config{RootCAs: roots},
		},
	}
	response, err := client.Get(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, response.Body); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %d %x\n", response.Proto, response.StatusCode, digest.Sum(nil))
}
