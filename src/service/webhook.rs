//! The webhook: sends a signed message for every job that ended, every gap in the archive, and
//! every time that the sync is held. Retries temporary failures.
//!
//! A message is a POST of JSON: `{"event", "delivery", "time", "data"}`, with these headers:
//!
//! - `X-Bsonvault-Event`: what happened, as in the body.
//! - `X-Bsonvault-Delivery`: a UUID, the same for every attempt, so that the receiver can detect
//!   duplicates.
//! - `X-Bsonvault-Timestamp`: when this attempt was made, in seconds since 1970.
//! - `X-Bsonvault-Signature`, if a secret is configured: `sha256=` and the HMAC-SHA256, in
//!   lower-case hexadecimal, of the timestamp, a dot and the body.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::config::WebhookSettings;
use crate::error::{Error, ErrorKind, Result};

/// The most attempts to send a message.
const ATTEMPTS: u32 = 6;

/// An event to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened, a word of visible ASCII: `job.succeeded`.
    pub name: &'static str,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The details. The caller makes sure that they hold no secrets.
    pub data: Value,
}

/// Timeouts and pauses.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The timeout of one attempt, from the connection to the status.
    attempt: Duration,
    /// The first pause. Each further one is twice as long.
    first: Duration,
    /// The longest pause that a receiver may ask for.
    longest: Duration,
}

const PACE: Pace = Pace { attempt: Duration::from_secs(10), first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The receiver of messages.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    url: Url,
    /// Scheme and host: the only parts of the URL that are ever shown.
    shown: String,
    secret: Option<String>,
    pace: Pace,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.shown).field("signed", &self.secret.is_some()).finish_non_exhaustive()
    }
}

/// A failed attempt.
struct Failed {
    error: Error,
    /// Whether the failure is temporary.
    passes: bool,
    /// The pause that the receiver asked for.
    pause: Option<Duration>,
}

impl Webhook {
    /// Prepares a client; sends nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the URL is invalid, without quoting it; [`ErrorKind::Internal`] if
    /// TLS cannot be set up.
    pub fn new(settings: &WebhookSettings) -> Result<Self> {
        Self::with_pace(settings, PACE)
    }

    fn with_pace(settings: &WebhookSettings, pace: Pace) -> Result<Self> {
        let shown = settings.shown();
        // The parser's error is left out: it may quote part of the URL.
        let url = Url::parse(&settings.url).map_err(|_| {
            Error::usage("WEBHOOK_URL is not a valid HTTP URL").hint("expected https://HOST/PATH or http://HOST/PATH")
        })?;
        // Another part of the program may already have installed a provider; any will do.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            // A redirect would send the message and its signature to an unconfigured host.
            .redirect(redirect::Policy::none())
            .timeout(pace.attempt)
            .user_agent(concat!("bsonvault/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::Internal, format!("cannot create the client of the webhook at {shown}"))
                    .cause(e.without_url())
            })?;
        Ok(Self { client, url, shown, secret: settings.secret.clone(), pace })
    }

    /// Sends a message until the receiver accepts it, six times at most. Network failures,
    /// timeouts, and the statuses 408, 429 and 5xx lead to another attempt. Pauses double, or
    /// follow `Retry-After`, for a minute at most. `stop` ends a pause, but not an attempt in
    /// progress. At least one attempt is made, so that the last message of a stopping service is
    /// sent.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if no answer came; [`ErrorKind::Server`] with the status of an
    /// answer that refuses the message; [`ErrorKind::Interrupted`] if `stop` prevented another
    /// attempt. None shows more of the URL than scheme and host.
    pub async fn deliver(&self, event: &Event, stop: &CancellationToken) -> Result<()> {
        let delivery = Uuid::new_v4();
        let body = json!({ "event": event.name, "delivery": delivery, "time": event.time, "data": event.data });
        let body = Bytes::from(body.to_string());
        let mut attempt = 1;
        loop {
            let Err(failed) = self.attempt(event, delivery, body.clone()).await else { return Ok(()) };
            if !failed.passes {
                return Err(failed.error);
            }
            if attempt == ATTEMPTS {
                return Err(failed.error.context(format!("given up after {ATTEMPTS} attempts")));
            }
            let pause = self.pause(attempt).max(failed.pause.unwrap_or_default());
            tracing::debug!(%delivery, attempt, pause = ?pause, "{}", failed.error);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    return Err(Error::interrupted().context(failed.error));
                }
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, event: &Event, delivery: Uuid, body: Bytes) -> Result<(), Failed> {
        let timestamp = clock::now().timestamp();
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("x-bsonvault-event", event.name)
            .header("x-bsonvault-delivery", delivery.to_string())
            .header("x-bsonvault-timestamp", timestamp.to_string());
        if let Some(secret) = &self.secret {
            let signature = signature(secret, timestamp, &body).map_err(Failed::for_good)?;
            request = request.header("x-bsonvault-signature", signature);
        }
        match request.body(body).send().await {
            Ok(response) => self.judge(&response),
            Err(e) => Err(self.unanswered(e)),
        }
    }

    fn judge(&self, response: &Response) -> Result<(), Failed> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Server, format!("the webhook at {} answered {status}", self.shown));
        if status.is_redirection() {
            return Err(Failed::for_good(error.hint("redirects are not followed: set WEBHOOK_URL to their target")));
        }
        let passes = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = asked.and_then(|text| retry_after(text, clock::now())).map(|pause| pause.min(self.pace.longest));
        Err(Failed { error, passes, pause })
    }

    fn unanswered(&self, e: reqwest::Error) -> Failed {
        let shown = &self.shown;
        let (kind, what) = if e.is_timeout() {
            (ErrorKind::Unreachable, format!("the webhook at {shown} did not answer within {:?}", self.pace.attempt))
        } else if e.is_connect() {
            (ErrorKind::Unreachable, format!("the webhook at {shown} cannot be reached"))
        } else if e.is_builder() {
            (ErrorKind::Internal, format!("cannot create the message for the webhook at {shown}"))
        } else {
            (ErrorKind::Unreachable, format!("the webhook at {shown} closed the connection"))
        };
        let passes = !e.is_builder();
        Failed { error: Error::new(kind, what).cause(e.without_url()), passes, pause: None }
    }

    /// The pause after this many attempts. It doubles each time; a random share of up to half is
    /// cut, so that many senders that failed together do not return together.
    fn pause(&self, attempts: u32) -> Duration {
        let longest = self.pace.first * 2_u32.saturating_pow(attempts - 1);
        // Without randomness, the whole pause is fine.
        let share = getrandom::u32().unwrap_or(u32::MAX);
        longest / 2 + (longest / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }
}

impl Failed {
    fn for_good(error: Error) -> Self {
        Self { error, passes: false, pause: None }
    }
}

/// `sha256=` and the HMAC in hexadecimal.
fn signature(secret: &str, timestamp: i64, body: &[u8]) -> Result<String> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(|e| Error::new(ErrorKind::Internal, "the webhook's secret cannot be used as a key").cause(e))?;
    hmac.update(format!("{timestamp}.").as_bytes());
    hmac.update(body);
    let digits: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={digits}"))
}

/// The pause that `Retry-After` asks for, in seconds or until a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => (DateTime::parse_from_rfc2822(text.trim()).ok()?.to_utc() - now).to_std().ok(),
    }
}
