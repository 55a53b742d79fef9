//! Everything at the door that reads what a stranger wrote, with bytes that nobody would write.
//!
//! Nothing panics, no message that is read back reads otherwise, and none of the inputs is believed to be
//! signed. Inputs are the ones kept in `data/door-corpus`, changed by a seed. A failure prints the line
//! that replays it. For a while, each of them: `STANDIN_FUZZ_SECONDS=60 cargo nextest run --workspace
//! -E 'test(fuzz::)' --no-capture`.

#![allow(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use standin_core::authorization::Merchant;
use standin_core::clock::Timestamp;
use standin_core::identity::DeploymentKey;
use standin_core::merchant::{Store, StoreDirectory};
use standin_core::signature::{
    Key, Keys, Scheme, Secret, TOLERANCE, basic, http_message, standard_webhooks, stripe,
};
use standin_edge::adapter::{Adapter, Format, Message, Resource, iso8583};
use standin_edge::config::BankConfig;
use standin_edge::iso8583::{CardAcceptorLayout, Encoding, Message as IsoMessage};
use standin_tests::sim::edge::bank;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Reads an input; whether it was taken for what it claims to be.
type Target = fn(&[u8]) -> bool;

/// Inputs of one run without a time.
const INPUTS: u64 = 20_000;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_030_000);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bytes and words on which readers stumble.
const WORDS: [&[u8]; 20] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"-0",
    b"1e999",
    b"\x00",
    b"\xff",
    b"\\ud800",
    b"9223372036854775808",
    b"0100",
    b"=",
    b"\r\n",
    b" ",
    b"\xf0\x9f\x92\xb3",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/door-corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn changed(kept: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9));
    let mut input = kept[dice.below(kept.len())].clone();
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(input.len());
        let end = (at + 1 + dice.below(16)).min(input.len());
        match dice.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << dice.below(8),
            1 if !input.is_empty() => input[at] = dice.next() as u8,
            2 => drop(input.drain(at.min(end)..end)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at.min(end)..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = &kept[dice.below(kept.len())];
                let from = dice.below(other.len());
                let piece = &other[from..(from + dice.below(64)).min(other.len())];
                input.splice(at..at, piece.iter().copied());
            }
            6 => {
                let times = 1 + dice.below(40);
                let word = WORDS[dice.below(WORDS.len())].repeat(times);
                input.splice(at..at, word);
            }
            _ => {
                let word = WORDS[dice.below(WORDS.len())];
                input.splice(at..end.max(at), word.iter().copied());
            }
        }
        input.truncate(16 * 1024);
    }
    input
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Seeds of this run, by number or by time.
fn seeds() -> impl Iterator<Item = u64> {
    let first = from_env("STANDIN_FUZZ_SEED").unwrap_or(1);
    let seconds = from_env("STANDIN_FUZZ_SECONDS").map(Duration::from_secs);
    let runs = from_env("STANDIN_FUZZ_RUNS").unwrap_or(INPUTS);
    let began = Instant::now();
    (first..).take_while(move |seed| match seconds {
        Some(long) => began.elapsed() < long,
        None => seed - first < runs,
    })
}

fn run(name: &str, target: Target) {
    let kept = corpus(name);
    let whole = kept.iter().filter(|input| target(input)).count();
    assert!(whole > 0, "no input of {name} reads as what it is kept for");
    let (mut inputs, mut taken) = (0_u64, 0_u64);
    for seed in seeds() {
        let input = changed(&kept, seed);
        let read = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let read = read.unwrap_or_else(|_| {
            panic!("STANDIN_FUZZ_SEED={seed} STANDIN_FUZZ_RUNS=1, target {name}")
        });
        inputs += 1;
        taken += u64::from(read);
    }
    println!("{name}: {inputs} inputs, {taken} of them taken, no panic");
}

static BANK: LazyLock<BankConfig> = LazyLock::new(|| bank().unwrap());

fn understood(format: Format, body: &[u8], resources: &[Resource<'_>]) -> bool {
    let mut taken = false;
    for resource in resources {
        let message = Message {
            bank: &BANK,
            id: Some("msg_1"),
            resource: *resource,
            body,
            at: NOW,
        };
        match format.understand(&message) {
            Ok(understood) => {
                // Read again it is the same: a retry must be the same payment.
                let again = format.understand(&message).unwrap();
                assert_eq!(again.asked, understood.asked);
                taken = true;
            }
            Err(problem) => assert!(problem.status().as_u16() < 500),
        }
    }
    taken
}

#[test]
fn native() {
    run("native", |body| {
        let resources = [
            Resource::Authorizations,
            Resource::Increments("key:p-1"),
            Resource::Reversals("key:p-1"),
            Resource::Outcomes("key:p-1"),
            Resource::Advices,
            Resource::Settlements,
        ];
        understood(Format::Native, body, &resources)
    });
}

#[test]
fn stripe_events() {
    run("stripe", |body| {
        understood(Format::Stripe, body, &[Resource::Authorizations])
    });
}

#[test]
fn lithic() {
    run("lithic", |body| {
        understood(Format::Lithic, body, &[Resource::Authorizations])
    });
}

#[test]
fn marqeta() {
    run("marqeta", |body| {
        understood(Format::Marqeta, body, &[Resource::Authorizations])
    });
}

#[test]
fn iso_8583() {
    run("iso8583", |bytes| {
        let key = DeploymentKey::new(vec![7; 32]).unwrap();
        let mut taken = false;
        for encoding in [Encoding::Ascii, Encoding::AsciiBinary] {
            let Ok(message) = IsoMessage::decode(bytes, encoding) else {
                continue;
            };
            assert_eq!(message.encode(encoding), bytes, "another way to write it");
            let bank = BankConfig {
                encoding,
                card_acceptor: CardAcceptorLayout::Mastercard,
                ..BANK.clone()
            };
            match iso8583::understand(&bank, &key, &message, NOW) {
                Ok(_asked) => taken = true,
                Err(code) => drop(iso8583::plain(&message, code)),
            }
        }
        taken
    });
}

/// The lines of an input, as headers would hold them.
fn lines(bytes: &[u8]) -> Option<[&str; 3]> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split('\n');
    Some([(); 3].map(|()| lines.next().unwrap_or_default()))
}

fn refused(verified: bool, what: &str) -> bool {
    assert!(!verified, "{what}: believed to be signed");
    true
}

#[test]
fn standard_webhooks_headers() {
    run("standard-webhooks", |bytes| {
        let secret: Secret = SECRET.parse().unwrap();
        let Some([signature, timestamp, id]) = lines(bytes) else {
            return false;
        };
        let signed = standard_webhooks::Signed {
            id,
            timestamp,
            signature,
            body: b"{\"test\": 1}",
        };
        let verified = standard_webhooks::verify(&[secret], &signed, NOW, TOLERANCE);
        refused(verified.is_ok(), signature)
    });
}

#[test]
fn stripe_signature_headers() {
    run("stripe-signature", |bytes| {
        let secret = Scheme::Stripe.secret("whsec_test_secret_2").unwrap();
        let Some([header, ..]) = lines(bytes) else {
            return false;
        };
        let verified = stripe::verify(&[secret], header, b"{}", NOW, TOLERANCE);
        refused(verified.is_ok(), header)
    });
}

#[test]
fn http_message_headers() {
    run("http-message", |bytes| {
        let key = Key::lasting(Secret::from_bytes(vec![9; 32]).unwrap());
        let keys = Keys::of(vec![key]).unwrap();
        let Some([signature_input, signature, content_digest]) = lines(bytes) else {
            return false;
        };
        let message = http_message::Signed {
            method: "POST",
            authority: "edge.example.com",
            target: "/v1/banks/first/authorizations",
            content_type: "application/json",
            content_digest,
            idempotency_key: "p-1",
            signature_input,
            signature,
            body: b"{\"hello\": \"world\"}",
        };
        let verified = http_message::verify(&keys.live(NOW), &message, NOW);
        refused(verified.is_ok(), signature_input)
    });
}

#[test]
fn basic_headers() {
    run("basic", |bytes| {
        let secret = Scheme::Basic.secret("marqeta:another-street").unwrap();
        let Some([header, ..]) = lines(bytes) else {
            return false;
        };
        refused(basic::verify(&[secret], header).is_ok(), header)
    });
}

#[test]
fn merchants() {
    static STORES: LazyLock<StoreDirectory> = LazyLock::new(|| {
        let store = |id: i64, name: &str, address: &str| Store {
            id: id.try_into().unwrap(),
            name: name.to_owned(),
            address: address.to_owned(),
            lat_e6: 0,
            lon_e6: 0,
        };
        StoreDirectory::new(vec![
            store(1, "Target T-1234", "789 Mission St, San Francisco CA 94103"),
            store(2, "Target T-2345", "2700 5th St, Alameda CA 94501"),
            store(3, "Café Øst", "12 Straße"),
        ])
    });
    run("merchant", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (name, address) = text.split_once('\n').unwrap_or((&text, ""));
        let merchant = Merchant {
            name: name.to_owned(),
            address: address.to_owned(),
        };
        let found = STORES.resolve(&merchant);
        assert_eq!(STORES.resolve(&merchant), found);
        matches!(found, standin_core::merchant::Resolution::Store(_))
    });
}

/// A server that never sees a request that is not whole.
mod http {
    use std::sync::Arc;

    use bytes::Bytes;
    use standin_core::BoxFuture;
    use standin_edge::server::{Handler, Request, ServerLimits, serve};
    use tokio_util::sync::CancellationToken;

    use super::*;

    struct Door;

    impl Handler for Door {
        fn handle(&self, request: Request) -> BoxFuture<'_, ::http::Response<Bytes>> {
            Box::pin(async move { ::http::Response::new(request.body) })
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn heads_and_bodies() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = ServerLimits {
            header_timeout: Duration::from_millis(200),
            body_timeout: Duration::from_millis(200),
            idle_timeout: Duration::from_millis(200),
            ..ServerLimits::default()
        };
        let serving = tokio::spawn(serve(listener, None, Arc::new(Door), limits, stop.clone()));
        let kept = corpus("http");
        let (mut inputs, mut answered) = (0_u64, 0_u64);
        for seed in
            seeds().take_while(|seed| from_env("STANDIN_FUZZ_SECONDS").is_some() || *seed <= 2_000)
        {
            let input = changed(&kept, seed);
            let mut client = TcpStream::connect(address).await.unwrap();
            let mut said = Vec::new();
            let speaking = async {
                drop(client.write_all(&input).await);
                drop(client.shutdown().await);
                drop(client.read_to_end(&mut said).await);
            };
            timeout(Duration::from_secs(20), speaking)
                .await
                .unwrap_or_else(|_| panic!("STANDIN_FUZZ_SEED={seed}: not closed"));
            assert!(
                said.is_empty() || said.starts_with(b"HTTP/1."),
                "STANDIN_FUZZ_SEED={seed}"
            );
            inputs += 1;
            answered += u64::from(said.starts_with(b"HTTP/1.1 200"));
        }
        println!("http: {inputs} inputs, {answered} of them answered, no panic");
        stop.cancel();
        assert_eq!(serving.await.unwrap(), standin_edge::server::Stopped::Clean);
    }
}
