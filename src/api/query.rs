//! Parses queries: known names only, each once, with valid values. A misspelled name is refused,
//! not ignored. Every handler parses its query, even if it takes none.

use std::str::FromStr;

use rocket::request::{FromRequest, Outcome, Request};
use utoipa::IntoParams;

use super::body;
use super::failure::turn_away;
use crate::error::{Error, Result};
use crate::names::nearest;
use crate::service::{JobKind, JobState};

/// The most jobs in one answer: all that are kept.
const MOST_JOBS: u32 = 1000;
/// The default number of jobs in one answer.
const JOBS: u32 = 100;

/// The query of a request. If the request's method takes no body, this also checks that there is
/// none.
pub(super) struct Query<T>(pub(super) T);

/// A type that can be read from a query.
pub(super) trait Parameters: Sized + Send {
    /// Its names.
    const NAMES: &'static [&'static str];

    /// Takes all known fields.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    fn take(fields: &mut Fields) -> Result<Self>;
}

/// The fields of a query.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of this name, if given.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it is repeated or invalid.
    pub(super) fn take<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>> {
        let mut given = self.0.extract_if(.., |(key, _)| key == name);
        match (given.next(), given.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => match value.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Error::usage(format!("{name} is {value:?}, expected {expected}"))),
            },
            (Some(_), Some(_)) => Err(Error::usage(format!("{name} is given more than once"))),
        }
    }
}

#[rocket::async_trait]
impl<'r, T: Parameters> FromRequest<'r> for Query<T> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let fields = request.query_fields().map(|field| (field.name.source().to_string(), field.value.to_owned()));
        let mut fields = Fields(fields.collect());
        let taken = T::take(&mut fields).and_then(|taken| match fields.0.first() {
            None => Ok(taken),
            Some((unknown, _)) => Err(unknown_name(unknown, T::NAMES)),
        });
        match taken {
            Ok(_) if body::has_unasked(request) => turn_away(request, body::unasked()),
            Ok(taken) => Outcome::Success(Self(taken)),
            Err(error) => turn_away(request, error.into()),
        }
    }
}

/// The longest name that is shown whole.
const SHOWN: usize = 100;

fn unknown_name(unknown: &str, known: &[&str]) -> Error {
    let shown: String = unknown.chars().take(SHOWN).collect();
    let error = Error::usage(format!("the query has an unknown name {shown:?}"));
    match (nearest(unknown, known.iter().copied()), known) {
        (_, []) => error.hint("this call takes no query"),
        (Some(meant), _) => error.hint(format!("{meant} was probably meant; this call takes {}", known.join(", "))),
        (None, _) => error.hint(format!("this call takes {}", known.join(", "))),
    }
}

/// An empty query.
pub(super) struct Nothing;

impl Parameters for Nothing {
    const NAMES: &'static [&'static str] = &[];

    fn take(_: &mut Fields) -> Result<Self> {
        Ok(Self)
    }
}

/// Whether to wait for a job.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Wait until the job has ended. If false, answer 202 with the job's id at once.
    #[param(required = false, default = true)]
    pub(super) wait: bool,
}

impl Parameters for Wait {
    const NAMES: &'static [&'static str] = &["wait"];

    fn take(fields: &mut Fields) -> Result<Self> {
        Ok(Self { wait: fields.take("wait", "true or false")?.unwrap_or(true) })
    }
}

/// How much of a backup to show.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Detail {
    /// Also list the segments of each collection and of the oplog slice.
    #[param(required = false, default = false)]
    pub(super) segments: bool,
}

impl Parameters for Detail {
    const NAMES: &'static [&'static str] = &["segments"];

    fn take(fields: &mut Fields) -> Result<Self> {
        Ok(Self { segments: fields.take("segments", "true or false")?.unwrap_or(false) })
    }
}

/// Which jobs to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The most jobs to list.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: u32,
    /// List only jobs of this kind.
    #[param(nullable = false)]
    pub(super) kind: Option<JobKind>,
    /// List only jobs in this state.
    #[param(nullable = false)]
    pub(super) state: Option<JobState>,
}

impl Parameters for Which {
    const NAMES: &'static [&'static str] = &["limit", "kind", "state"];

    fn take(fields: &mut Fields) -> Result<Self> {
        let limit = fields.take("limit", &format!("a whole number from 1 to {MOST_JOBS}"))?.unwrap_or(JOBS);
        if !(1..=MOST_JOBS).contains(&limit) {
            return Err(Error::usage(format!("limit is {limit}, expected a whole number from 1 to {MOST_JOBS}")));
        }
        let kind: Option<String> = fields.take("kind", "text")?;
        let state: Option<String> = fields.take("state", "text")?;
        Ok(Self {
            limit,
            kind: named("kind", kind, &JobKind::ALL, JobKind::name)?,
            state: named("state", state, &JobState::ALL, JobState::name)?,
        })
    }
}

/// The value with this name.
fn named<T: Copy>(what: &str, given: Option<String>, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Option<T>> {
    let Some(given) = given else { return Ok(None) };
    match all.iter().find(|one| name(**one) == given) {
        Some(one) => Ok(Some(*one)),
        None => {
            let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
            Err(Error::usage(format!("{what} is {given:?}, expected one of {}", names.join(", "))))
        }
    }
}
