//! The log line of a request, and what it never holds.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rocket::http::Method;
use tracing_subscriber::fmt::MakeWriter;

use super::place::{ADMIN, Ask, Place};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_line_names_the_request_and_no_token() {
    let place = Place::new().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let ask = |token, id: &str| {
        Ask::new(Method::Get, "/api/jobs?limit=7&token=in-the-query")
            .token(Some(token))
            .from("192.0.2.7")
            .header("X-Request-Id", id)
    };
    place.ask(ask("a-wrong-token", "first")).await;
    place.ask(ask(ADMIN, "second")).await;
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let answered: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (id, status, said) in [("first", 401, "turned away: a token that is not known"), ("second", 422, "answered")] {
        let lines: Vec<_> = answered.iter().map(|line| &line["fields"]).filter(|fields| fields["requestId"] == id).collect();
        let [line] = lines[..] else { panic!("{id} has {} lines: {text}", lines.len()) };
        assert_eq!(line["message"], said, "{line}");
        assert_eq!(
            (&line["method"], &line["path"], &line["status"]),
            (&"GET".into(), &"/api/jobs".into(), &status.into()),
            "{line}"
        );
        assert!(line["client"] == "192.0.2.7" && line["ms"].is_u64(), "{line}");
    }
    for secret in [ADMIN, "a-wrong-token", "in-the-query"] {
        assert!(!text.contains(secret), "{secret} is in the log: {text}");
    }
}
