// Sends Marqeta's request to fund a transaction, with user and password over mutual TLS: the standard library alone.
// `standin bank listen --format marqeta` prints what to export: STANDIN_URL, STANDIN_BANK,
// STANDIN_BANK_SECRET, STANDIN_CA, STANDIN_CERTIFICATE, STANDIN_KEY.
// To check a signature by: secret marqeta:sesame-street:
// Basic bWFycWV0YTpzZXNhbWUtc3RyZWV0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

const body = `{"type":"authorization","card_token":"card-example-123","user_token":"user-example-123","gpa_order":{"currency_code":"USD","jit_funding":{"token":"sample-1","method":"pgfs.authorization","user_token":"user-example-123","amount":12.30}},"card_acceptor":{"mid":"GROCER-0042","name":"Target","address":"123 Main St","city":"Cincinnati","state":"OH","postal_code":"45202"}}`

// signed sets user and password; that it is the bank the connection proves.
func signed(header http.Header, secret string) {
	header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(secret)))
}

// client trusts the edge's authority and shows the bank's certificate.
func client() *http.Client {
	authority, err := os.ReadFile(os.Getenv("STANDIN_CA"))
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	own, err := tls.LoadX509KeyPair(os.Getenv("STANDIN_CERTIFICATE"), os.Getenv("STANDIN_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
}

func main() {
	url := os.Getenv("STANDIN_URL") + "/v1/banks/" + os.Getenv("STANDIN_BANK") + "/authorizations"
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	signed(request.Header, os.Getenv("STANDIN_BANK_SECRET"))
	reply, err := client().Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.StatusCode, reply.Header.Get("Idempotent-Replayed"))
	fmt.Println(string(text))
}
