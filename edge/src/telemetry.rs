//! Logs to standard error, and traces to an OTLP/HTTP collector if one is configured.
//!
//! A collector that is slow or dead costs requests nothing: spans wait in a bounded queue that a
//! thread of its own empties, and are dropped when it is full. Only our own spans are exported.
//! Absent on purpose: TLS to the collector (it runs next to the edge), exported logs and metrics.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Config, LogFormat};

/// Longest wait for the collector, per export and at the end.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps traces flowing; stop it last.
#[derive(Debug)]
pub struct Telemetry {
    tracing: Option<SdkTracerProvider>,
}

/// Logs or traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("telemetry.log_level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be built.
    #[error("telemetry.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Somebody else in this process has set up logs.
    #[error("logs are set up already")]
    Twice,
}

// === impl Telemetry ===

impl Telemetry {
    /// Sets up logs and, if configured, traces, for the whole process. Needs a tokio runtime, which
    /// does the exporter's I/O.
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let filter: EnvFilter = config.telemetry.log_level.parse()?;
        let lines = match config.telemetry.log_format {
            LogFormat::Json => tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .boxed(),
            LogFormat::Text => tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .boxed(),
        };
        let tracing = match &config.telemetry.otlp_endpoint {
            Some(endpoint) => Some(provider(endpoint, config)?),
            None => None,
        };
        let spans = tracing.as_ref().map(layer);
        tracing_subscriber::registry()
            .with(spans)
            .with(lines.with_filter(filter))
            .try_init()
            .map_err(|_| TelemetryError::Twice)?;
        Ok(Self { tracing })
    }

    /// Exports what waits, for three seconds at most.
    pub async fn stop(self) {
        let Some(provider) = self.tracing else {
            return;
        };
        let stopping = move || provider.shutdown_with_timeout(EXPORT_TIMEOUT);
        match tokio::task::spawn_blocking(stopping).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "not every span was exported"),
            Err(error) => tracing::debug!(%error, "the exporter did not stop"),
        }
    }
}

fn provider(
    endpoint: &str,
    config: &Config,
) -> Result<SdkTracerProvider, opentelemetry_otlp::ExporterBuildError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime::new())
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name("standin-edge")
        .with_attributes([
            KeyValue::new("service.instance.id", config.edge_id.to_string()),
            KeyValue::new("cloud.region", config.region.clone()),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler(config.telemetry.trace_percent))
        .with_batch_exporter(exporter)
        .build())
}

#[allow(
    clippy::float_arithmetic,
    reason = "the sampler's own interface; no money near"
)]
fn sampler(percent: u32) -> Sampler {
    Sampler::TraceIdRatioBased(f64::from(percent) / 100.0)
}

type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(provider: &SdkTracerProvider) -> SpanLayer {
    let tracer: SdkTracer = provider.tracer("standin-edge");
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        // Our own spans only: the exporter's HTTP client must not trace itself.
        .with_filter(filter_fn(|meta| meta.target().starts_with("standin")))
        .boxed()
}

/// The SDK exports from a plain thread; the HTTP client's I/O needs the runtime.
struct OnRuntime {
    client: std::sync::Arc<HyperClient>,
    runtime: tokio::runtime::Handle,
}

impl OnRuntime {
    fn new() -> Self {
        Self {
            client: std::sync::Arc::new(HyperClient::with_default_connector(EXPORT_TIMEOUT, None)),
            runtime: tokio::runtime::Handle::current(),
        }
    }
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRuntime(..)")
    }
}

impl HttpClient for OnRuntime {
    // What `#[async_trait]` makes of `async fn send_bytes`.
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let client = std::sync::Arc::clone(&self.client);
        let sending = self
            .runtime
            .spawn(async move { client.send_bytes(request).await });
        Box::pin(async move { sending.await? })
    }
}

#[cfg(test)]
mod tests;
