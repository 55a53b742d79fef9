// Sends Stripe's event issuing_authorization.request, signed as Stripe signs: the standard library alone.
// `standin bank listen --format stripe` prints what to export: STANDIN_URL, STANDIN_BANK, STANDIN_BANK_SECRET.
// To check a signature by: secret whsec_test_secret, time 1700000000,
// body {"id":"evt_1"}: t=1700000000,v1=248a374f50f943a28b0f6ab50faf9a7e7e29b710fa26df9fb1618b9bf8ea9c9a

package main

import (
	"crypto/hmac"
	"crypto/sha256"
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

const body = `{"id":"evt_sample_1","object":"event","api_version":"2024-12-18.acacia","type":"issuing_authorization.request","data":{"object":{"id":"iauth_sample_1","object":"issuing.authorization","card":{"id":"ic_example_123","cardholder":{"id":"ich_example_123"}},"cardholder":"ich_example_123","merchant_data":{"name":"Target","city":"Cincinnati","state":"OH","postal_code":"45202","network_id":"GROCER-0042"},"pending_request":{"amount":1230,"currency":"usd","is_amount_controllable":false},"request_history":[]}}}`

// signed sets the signature header, as Stripe makes it: the whole secret is the key, prefix and all.
func signed(header http.Header, secret, now, body string) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(now + "." + body))
	header.Set("Stripe-Signature", "t="+now+",v1="+hex.EncodeToString(mac.Sum(nil)))
}

func main() {
	url := os.Getenv("STANDIN_URL") + "/v1/banks/" + os.Getenv("STANDIN_BANK") + "/authorizations"
	request, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	now := strconv.FormatInt(time.Now().Unix(), 10)
	signed(request.Header, os.Getenv("STANDIN_BANK_SECRET"), now, body)
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
