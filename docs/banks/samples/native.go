// Asks for a payment in Standin's own format, signed as Standard Webhooks has it: the standard library alone.
// `standin bank listen` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
// To check a signature by: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, id msg_1, time 1700000000,
// body {"id":"evt_1"}: v1,YvZ0WbZa1/aSr6rYI+WcCNp6iQc1VGsNE8L2cBNlvT4=

package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const body = `{"shopper_id":123,"amount":12.30,"merchant":{"name":"Target","address":"123 Main St"},"transaction_id":"sample-1"}`

// signed sets the signature headers, as Standard Webhooks has them.
func signed(header http.Header, secret, message, now, body string) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		log.Fatal("the secret is not base64")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(message + "." + now + "." + body))
	header.Set("webhook-id", message)
	header.Set("webhook-timestamp", now)
	header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func main() {
	url := os.Getenv("STANDIN_URL") + "/v1/banks/" + os.Getenv("STANDIN_BANK") + "/authorizations"
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	now := strconv.FormatInt(time.Now().Unix(), 10)
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	message := "msg_" + hex.EncodeToString(random)
	signed(request.Header, os.Getenv("STANDIN_BANK_SECRET"), message, now, body)
	reply, err := http.DefaultClient.Do(request)
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
