//go:build ignore

// Go's net/http as a client that watches its connection by PINGs; see watchers.py for what it says.
//
//	watcher URL SEND_PING_TIMEOUT PING_TIMEOUT    (seconds)
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// watched is a connection that says when net/http closes it.
type watched struct {
	net.Conn
	closed *atomic.Bool
}

func (conn watched) Close() error {
	if !conn.closed.Swap(true) {
		fmt.Println("dead", time.Now().UnixNano())
	}
	return conn.Conn.Close()
}

func seconds(text string) time.Duration {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		log.Fatal(err)
	}
	return time.Duration(number * float64(time.Second))
}

func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func main() {
	url := os.Args[1]
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: seconds(os.Args[2]),
			PingTimeout:     seconds(os.Args[3]),
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return watched{conn, new(atomic.Bool)}, err
		},
	}}
	if err := get(client, url); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		for failures := 0; ; failures++ {
			if err := get(client, url); err == nil {
				fmt.Println("answered", time.Now().UnixNano(), failures)
				break
			}
		}
	}
}
