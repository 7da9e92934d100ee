//! Reads request bodies: JSON of limited size, with known fields only, each once. Calls without a
//! body refuse one.

use rocket::data::{Data, FromData, Limits, Outcome, ToByteUnit as _};
use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::{Method, Status};
use rocket::outcome::Outcome as Either;
use rocket::request::Request;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::failure::{Failure, turn_away};
use crate::names::nearest;

/// How many bytes are peeked at to see whether a body is empty.
const A_LOOK: usize = 512;
/// The longest field name that is shown whole.
const SHOWN: usize = 100;

/// A type that a body is parsed into.
pub(super) trait Known: DeserializeOwned + Send {
    /// Its fields.
    const FIELDS: &'static [&'static str];
    /// Whether a field that is `null` counts as absent. True if a response shows the same object
    /// with nulls.
    const NULLS: bool = false;
    /// At least one of these must be there, unless there are none.
    const ONE_OF: &'static [&'static str] = &[];
}

/// A required body.
pub(super) struct Body<T>(pub(super) T);

/// An optional body.
pub(super) struct Optional<T>(pub(super) T);

#[rocket::async_trait]
impl<'r, T: Known> FromData<'r> for Body<T> {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r, Self> {
        match read(request, data).await.and_then(|bytes| parse(request, &bytes)) {
            Ok(body) => Either::Success(Self(body)),
            Err(failure) => turn_away(request, failure),
        }
    }
}

#[rocket::async_trait]
impl<'r, T: Known + Default> FromData<'r> for Optional<T> {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r, Self> {
        let parsed = read(request, data).await.and_then(|bytes| match bytes.trim_ascii() {
            b"" | b"null" => Ok(T::default()),
            _ => parse(request, &bytes),
        });
        match parsed {
            Ok(body) => Either::Success(Self(body)),
            Err(failure) => turn_away(request, failure),
        }
    }
}

/// Reads the whole body. The dispatcher has already limited its time and size; at most one byte
/// more than the limit arrives.
async fn read(request: &Request<'_>, data: Data<'_>) -> Result<Vec<u8>, Failure> {
    let limit = request.limits().get("json").unwrap_or(Limits::JSON).as_u64();
    let said = request.headers().get_one("Content-Length").and_then(|length| length.parse::<u64>().ok());
    let read = data.open((limit + 1).bytes()).into_bytes().await;
    let bytes =
        read.map_err(|e| Failure::new(Status::BadRequest, "badRequest", format!("the body cannot be read: {e}")))?.into_inner();
    if said.is_some_and(|length| length > limit) || bytes.len() as u64 > limit {
        return Err(Failure::new(Status::PayloadTooLarge, "tooLarge", format!("the body has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn parse<T: Known>(request: &Request<'_>, bytes: &[u8]) -> Result<T, Failure> {
    is_json(request, bytes)?;
    // serde would take an array for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is not a JSON object"));
    }
    let fields = Fields { known: T::FIELDS, nulls: T::NULLS, refused: None }.read(bytes)?;
    if !T::ONE_OF.is_empty() && !fields.iter().any(|(name, _)| T::ONE_OF.contains(&name.as_str())) {
        return Err(bad(format!("it has none of the fields {}", T::ONE_OF.join(", "))));
    }
    serde_json::from_slice(bytes).map_err(|e| {
        // The parser does not tell the field.
        let culprit = fields.into_iter().find_map(|(name, value)| {
            let error = serde_json::from_value::<T>(Value::Object(Map::from_iter([(name.clone(), value)]))).err()?.to_string();
            (!error.starts_with("missing field")).then(|| format!("{name}: {error}"))
        });
        bad(culprit.unwrap_or_else(|| e.to_string()))
    })
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::new(Status::BadRequest, "badRequest", format!("the body is invalid: {what}"))
        .hint("GET /api/openapi.json describes it")
}

/// Refuses a body whose type is not JSON. `curl -d` declares a form by default: that passes if the
/// content is a JSON object.
fn is_json(request: &Request<'_>, bytes: &[u8]) -> Result<(), Failure> {
    let said = request.headers().get_one("Content-Type").unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = match said.as_str() {
        "" | "application/json" => true,
        "application/x-www-form-urlencoded" => bytes.trim_ascii_start().first() == Some(&b'{'),
        other => other.starts_with("application/") && other.ends_with("+json"),
    };
    if is_json {
        return Ok(());
    }
    let said: String = said.chars().take(SHOWN).collect();
    Err(Failure::new(
        Status::UnsupportedMediaType,
        "unsupportedMediaType",
        format!("the body is of type {said:?}, expected JSON"),
    )
    .hint("send a JSON object with the header Content-Type: application/json"))
}

/// Reads the fields of an object. Refuses unknown, repeated and null fields.
struct Fields {
    known: &'static [&'static str],
    nulls: bool,
    refused: Option<Failure>,
}

impl Fields {
    fn read(mut self, bytes: &[u8]) -> Result<Vec<(String, Value)>, Failure> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let read = (&mut self).deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
        match (self.refused, read) {
            (Some(refused), _) => Err(refused),
            (None, read) => read.map_err(bad),
        }
    }

    fn refusal(&self, name: &str, value: &Value, before: &[(String, Value)]) -> Option<Failure> {
        let shown: String = name.chars().take(SHOWN).collect();
        let all = if self.known.is_empty() { "no fields".to_owned() } else { self.known.join(", ") };
        if !self.known.contains(&name) {
            let meant = nearest(name, self.known.iter().copied()).map(|meant| format!("{meant} was probably meant; "));
            return Some(
                bad(format!("it has an unknown field {shown:?}"))
                    .hint(format!("{}this call takes {all}", meant.unwrap_or_default())),
            );
        }
        if before.iter().any(|(known, _)| known == name) {
            return Some(bad(format!("{shown} is given more than once")).hint("give it once"));
        }
        (value.is_null() && !self.nulls).then(|| bad(format!("{shown} is null")).hint("leave out the field instead"))
    }
}

impl<'de> DeserializeSeed<'de> for &mut Fields {
    type Value = Vec<(String, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if let Some(refused) = self.refusal(&name, &value, &fields) {
                self.refused = Some(refused);
                return Err(A::Error::custom("refused"));
            }
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// Whether a request has an unexpected body.
struct Unasked(bool);

/// Whether this request has a body although its method takes none.
pub(super) fn has_unasked(request: &Request<'_>) -> bool {
    request.local_cache(|| Unasked(false)).0
}

/// The answer to such a request.
pub(super) fn unasked() -> Failure {
    Failure::new(Status::BadRequest, "badRequest", "a body was sent, but this call takes none")
        .hint("GET /api/openapi.json describes what each call takes")
}

/// Looks for bodies of requests that take none. A GET handler cannot see the body.
pub(super) struct Unexpected;

#[rocket::async_trait]
impl Fairing for Unexpected {
    fn info(&self) -> Info {
        Info { name: "unexpected bodies", kind: Kind::Request }
    }

    async fn on_request(&self, request: &mut Request<'_>, data: &mut Data<'_>) {
        if matches!(request.method(), Method::Get | Method::Head | Method::Delete) {
            let seen = data.peek(A_LOOK).await;
            // A body of only white space counts as empty, unless it is too long to tell.
            let look = seen.len() == A_LOOK || !seen.trim_ascii().is_empty();
            request.local_cache(|| Unasked(look));
        }
    }
}
