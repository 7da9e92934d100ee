//! Queries: known names only, each once, each with a value that fits. What is misspelt is refused rather than left out of account. Every call has
//! one, also those that take nothing.

use std::str::FromStr;

use rocket::request::{FromRequest, Outcome, Request};
use utoipa::IntoParams;

use super::body;
use super::failure::turn_away;
use crate::error::{Error, Result};
use crate::names::nearest;
use crate::service::{JobKind, JobState};

/// The most jobs that are given at once: all that are kept.
const MOST_JOBS: u32 = 1000;
/// How many jobs are given where nothing else is said.
const JOBS: u32 = 100;

/// The query of a request, whose method takes no body if it has none.
pub(super) struct Query<T>(pub(super) T);

/// What can be read from a query.
pub(super) trait Parameters: Sized + Send {
    /// The names that it knows.
    const NAMES: &'static [&'static str];

    /// Takes all that it knows.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    fn take(fields: &mut Fields) -> Result<Self>;
}

/// The fields of a query.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of this name, where it is given.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for one that is given twice, or does not fit.
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
    let error = Error::usage(format!("{shown:?} is not known in this query"));
    match (nearest(unknown, known.iter().copied()), known) {
        (_, []) => error.hint("this call takes no query"),
        (Some(meant), _) => error.hint(format!("{meant} was probably meant; this call takes {}", known.join(", "))),
        (None, _) => error.hint(format!("this call takes {}", known.join(", "))),
    }
}

/// No query at all.
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
    /// Answer once the job ended; where it is `false`, answer 202 with the job's id at once.
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
    /// List the segments of each collection, and of the oplog slice, too.
    #[param(required = false, default = false)]
    pub(super) segments: bool,
}

impl Parameters for Detail {
    const NAMES: &'static [&'static str] = &["segments"];

    fn take(fields: &mut Fields) -> Result<Self> {
        Ok(Self { segments: fields.take("segments", "true or false")?.unwrap_or(false) })
    }
}

/// Which jobs.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// How many at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: u32,
    /// Those of this kind.
    #[param(nullable = false)]
    pub(super) kind: Option<JobKind>,
    /// Those in this state.
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

/// The one of this name.
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
