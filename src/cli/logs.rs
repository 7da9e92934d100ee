//! Sets up logs on standard error. They are apart from the output of a verb.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::render::plain;
use crate::config::LogFormat;

/// The default filter, without `RUST_LOG`, of a verb that ends: its output says the rest.
pub const OF_A_VERB: &str = "warn";
/// The default filter of the service, which has no other output. The service logs requests itself,
/// so the HTTP server's log of them is off.
pub const OF_A_SERVICE: &str = "info,rocket=error,tokio_cron_scheduler=warn";

/// The filter for a verb with this many `-v`. It never includes what libraries do.
#[must_use]
pub fn of_verbosity(level: u32) -> &'static str {
    match level {
        0 => OF_A_VERB,
        1 => "warn,bsonvault=info",
        2 => "warn,bsonvault=debug",
        _ => "warn,bsonvault=trace",
    }
}

/// Libraries whose debug logs show whole requests, with tokens. These logs are never written,
/// whatever `RUST_LOG` says.
const TALKATIVE: [&str; 5] = ["rocket", "hyper", "hyper_util", "reqwest", "rustls"];

/// Starts logging, once in a process.
pub fn start(format: LogFormat, usual: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    subscriber(format, filter, std::io::stderr).init();
}

/// Whether a record may be written at all.
fn is_discreet(metadata: &tracing::Metadata<'_>) -> bool {
    let target = metadata.target();
    let library = target.split("::").next().unwrap_or_default();
    // Targets with this ending are comments of the HTTP server on a request, under the names of our
    // own modules. The access log has them already.
    !target.ends_with("::_") && (*metadata.level() <= tracing::Level::INFO || !TALKATIVE.contains(&library))
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    // Text from a server or a client may hold line ends. They are escaped, so a record is one line.
    let fields = debug_fn(|line, field, value| match field.name() {
        "message" => line.write_str(&plain(&format!("{value:?}"))),
        name => write!(line, "{name}={}", plain(&format!("{value:?}"))),
    });
    let discreet = tracing_subscriber::registry().with(filter).with(filter_fn(is_discreet));
    match format {
        LogFormat::Human => Box::new(discreet.with(lines.fmt_fields(fields.delimited(" ")))),
        // Only the innermost span around an event, with its fields: the list of all would repeat
        // it.
        LogFormat::Json => Box::new(discreet.with(lines.json().with_current_span(true).with_span_list(false))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("job", id = 7).entered();
            tracing::info!(target: "bsonvault::x", documents = 3, "done");
            tracing::info!(target: "rocket::server", "GET /");
            tracing::debug!(target: "rocket::server", "with a token");
            tracing::trace!(target: "hyper", "with a token");
            tracing::warn!(target: "bsonvault::api::backups::_", "guard with a token");
            tracing::warn!(target: "bsonvault::y", "shaky");
        });
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_an_object_on_each_line_with_its_span() {
        let text = logged(LogFormat::Json, OF_A_SERVICE);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!((&lines[0]["level"], &lines[0]["target"]), (&"INFO".into(), &"bsonvault::x".into()));
        assert_eq!(lines[0]["fields"], serde_json::json!({ "message": "done", "documents": 3 }));
        assert_eq!(lines[0]["span"], serde_json::json!({ "name": "job", "id": 7 }));
        assert!(lines[0]["timestamp"].is_string() && lines[0].get("spans").is_none(), "{text}");
        assert_eq!(lines[1]["fields"]["message"], "shaky");
    }

    #[test]
    fn people_get_lines_and_a_verb_warnings_only() {
        let text = logged(LogFormat::Human, OF_A_SERVICE);
        assert!(text.contains("done") && text.contains("documents") && !text.contains("GET /"), "{text}");
        let text = logged(LogFormat::Human, OF_A_VERB);
        assert!(text.contains("shaky") && !text.contains("done"), "{text}");
    }

    #[test]
    fn what_shows_whole_requests_is_never_written() {
        let text = logged(LogFormat::Human, "trace");
        assert!(text.contains("done") && text.contains("GET /") && !text.contains("token"), "{text}");
    }

    #[test]
    fn a_record_is_one_line_whatever_it_quotes() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let written = Written::default();
            let writer = written.clone();
            let subscriber = subscriber(format, EnvFilter::new("info"), move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                let name = "a\nERROR forged\u{1b}[31m\u{7}";
                let _span = tracing::info_span!("job", of = %name).entered();
                tracing::info!(collection = %name, quoted = name, "dropped: {name}");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        }
    }
}
