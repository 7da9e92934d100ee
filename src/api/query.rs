//! Queries: known names only, each once, each with a value that fits. What is misspelt is refused rather than left out of account.

use std::str::FromStr;

use rocket::request::{FromRequest, Outcome, Request};

use super::failure::turn_away;
use crate::error::{Error, Result};

/// The query of a request.
pub(super) struct Query<T>(pub(super) T);

/// What can be read from a query.
pub(super) trait Parameters: Sized + Send {
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
            Some((unknown, _)) => Err(Error::usage(format!("{unknown:?} is not known in this query"))),
        });
        match taken {
            Ok(taken) => Outcome::Success(Self(taken)),
            Err(error) => turn_away(request, error.into()),
        }
    }
}
