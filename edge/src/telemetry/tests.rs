use std::sync::{Arc, Mutex};

use standin_core::BoxFuture;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::server::{Handler, ServerLimits, serve};

/// A collector that keeps what it was sent.
#[derive(Default)]
struct Collector(Mutex<Vec<(String, Bytes)>>);

impl Handler for Collector {
    fn handle(&self, request: crate::server::Request) -> BoxFuture<'_, http::Response<Bytes>> {
        let path = request.parts.uri.path().to_owned();
        self.0.lock().unwrap().push((path, request.body));
        Box::pin(async { http::Response::new(Bytes::new()) })
    }
}

fn config() -> Config {
    let (config, _) = Config::load(Some(crate::config::EXAMPLE), Vec::new()).unwrap();
    config
}

fn emit(provider: &SdkTracerProvider, spans: usize) {
    let subscriber = tracing_subscriber::registry().with(layer(provider));
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..spans {
            let whole = tracing::info_span!("authorization", rung = "primary");
            let _inside = whole.enter();
            drop(tracing::info_span!("look").entered());
        }
        drop(tracing::info_span!(target: "hyper::client", "not ours").entered());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let collector = Arc::new(Collector::default());
    let stop = CancellationToken::new();
    let handler: Arc<dyn Handler> = collector.clone();
    let limits = ServerLimits {
        body_bytes: 1024 * 1024,
        ..ServerLimits::default()
    };
    let serving = tokio::spawn(serve(listener, None, handler, limits, stop.clone()));
    let provider = provider(&format!("http://{address}/"), &config()).unwrap();
    emit(&provider, 2);
    Telemetry {
        tracing: Some(provider),
    }
    .stop()
    .await;
    stop.cancel();
    serving.await.unwrap();
    let got = collector.0.lock().unwrap();
    let (path, body) = got.first().expect("an export");
    assert_eq!(path, "/v1/traces");
    let has = |text: &str| {
        body.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    for text in [
        "standin-edge",
        "authorization",
        "look",
        "rung",
        "primary",
        "local",
    ] {
        assert!(has(text), "{text}");
    }
    assert!(!has("not ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_stalls_nobody() {
    // Bound and never accepting: connections succeed, nothing ever answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for address in [deaf.local_addr().unwrap(), closed] {
        let provider = provider(&format!("http://{address}"), &config()).unwrap();
        let began = Instant::now();
        emit(&provider, 10_000);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        let telemetry = Telemetry {
            tracing: Some(provider),
        };
        let stopped = tokio::time::timeout(EXPORT_TIMEOUT * 3, telemetry.stop()).await;
        assert!(stopped.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_percent_of_the_traces_is_none() {
    let mut config = config();
    config.telemetry.trace_percent = 0;
    let none = provider("http://127.0.0.1:9", &config).unwrap();
    let subscriber = tracing_subscriber::registry().with(layer(&none));
    tracing::subscriber::with_default(subscriber, || {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let span = tracing::info_span!("authorization");
        assert!(!span.context().span().span_context().is_sampled());
    });
}
