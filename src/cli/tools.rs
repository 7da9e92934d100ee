//! What `dump` and `restore` share: the connection flags of MongoDB's tools, flags that have no
//! effect or are refused, and errors that name their flags.

mod deployment;
mod password;
mod refusal;
mod secrets;
mod taken;

pub use deployment::Deployment;
pub(in crate::cli) use deployment::{given, positional};
pub(in crate::cli) use refusal::{Refusal, refuse};

use super::output;
use crate::error::{Error, Face, Result};
use crate::mongo::MongoUri;
use crate::names::{Namespace, NamespacePattern};

/// The default deployment, as with MongoDB's tools.
pub(super) const DEFAULT_URI: &str = "mongodb://localhost:27017";

/// Prints once which of the given flags have no effect.
pub(super) fn tell_without_effect(deployment: &Deployment, others: &[(&'static str, bool)]) {
    let others = others.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag);
    let flags: Vec<&str> = deployment.without_effect().into_iter().chain(others).collect();
    if !flags.is_empty() && !deployment.is_quiet() {
        output::to_stderr(&format!("note: accepted, but without effect: {}\n", flags.join(", ")));
    }
}

/// The database of `--db`, else the one in the path of the URI.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if both are given and differ.
pub(super) fn database<'a>(asked: Option<&'a str>, uri: &'a MongoUri) -> Result<Option<&'a str>> {
    match (asked, uri.database()) {
        (Some(asked), Some(in_path)) if asked != in_path => {
            Err(Error::usage(format!("--db is {asked:?}, but the path of the URI has the database {in_path:?}"))
                .hint("name only one of them; if the user is in that database, add ?authSource= to the URI"))
        }
        (asked, in_path) => Ok(asked.or(in_path)),
    }
}

/// Patterns for collections of this database with these names, or with these prefixes.
pub(super) fn patterns_of(database: &str, names: &[String], prefixes: &[String]) -> Result<Vec<NamespacePattern>> {
    let names = names.iter().map(|name| NamespacePattern::exactly(&Namespace::new(database, &**name)));
    let prefixes = prefixes.iter().map(|prefix| NamespacePattern::beginning_with(&Namespace::new(database, &**prefix)));
    names.chain(prefixes).collect()
}

/// The error with a hint that names the flags of this verb. In each pair, the first text replaces
/// the second. Longer texts come first.
pub(super) fn in_flags_of(flags: &[(&str, &str)], error: Error) -> Error {
    let Some(hint) = error.told(Face::CommandLine).1 else { return error };
    let hint = flags.iter().fold(hint, |hint, (there_is, other)| hint.replace(other, there_is));
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::mongo::Role;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true, args_override_self = true, disable_version_flag = true, version)]
    struct Line {
        #[command(flatten)]
        deployment: Deployment,
        rest: Vec<String>,
    }

    fn line(args: &[&str]) -> Line {
        Line::try_parse_from(["x"].iter().chain(args)).unwrap()
    }

    fn uri_of(args: &[&str], database: Option<&str>) -> Result<Option<String>> {
        let line = line(args);
        let (positional, _) = positional(&line.rest)?;
        line.deployment.uri(positional, database)
    }

    fn uri(args: &[&str]) -> Option<String> {
        uri_of(args, None).unwrap()
    }

    #[test]
    fn a_deployment_is_named_as_with_the_tools_of_mongodb() {
        assert_eq!(uri(&[]), None);
        assert_eq!(uri(&["--uri", "", "-h", "", "--port="]), None);
        assert_eq!(uri(&["--uri", "mongodb://a/"]).as_deref(), Some("mongodb://a/"));
        assert_eq!(uri(&["mongodb://a/"]).as_deref(), Some("mongodb://a/"));
        assert_eq!(uri(&["-h", "a"]).as_deref(), Some("mongodb://a/?directConnection=true"));
        assert_eq!(uri(&["-ha:5"]).as_deref(), Some("mongodb://a:5/?directConnection=true"));
        assert_eq!(uri(&["--port", "7"]).as_deref(), Some("mongodb://localhost:7/?directConnection=true"));
        assert_eq!(uri(&["--host", "rs/a,b", "--port", "7"]).as_deref(), Some("mongodb://a:7,b:7/?replicaSet=rs"));
        assert_eq!(uri(&["--host", "a", "--host", "b"]).as_deref(), Some("mongodb://b/?directConnection=true"));
        assert_eq!(
            uri(&["-h", "a", "-u", "x@y", "-pp/w", "--authenticationDatabase", "admin"]).as_deref(),
            Some("mongodb://x%40y:p%2Fw@a/?directConnection=true&authSource=admin")
        );
        assert_eq!(
            uri(&["--uri", "mongodb://a:1/?replicaSet=r", "--host", "r/A:1", "-u", "x", "-p=y"]).as_deref(),
            Some("mongodb://x:y@a:1/?replicaSet=r")
        );
        let of_database = uri_of(&["-u", "x", "-p", "y", "-h", "a"], Some("shop")).unwrap();
        assert_eq!(of_database.as_deref(), Some("mongodb://x:y@a/?directConnection=true&authSource=shop"));
    }

    #[test]
    fn tls_is_named_as_with_the_tools_of_mongodb_and_the_shell() {
        let expected = "mongodb://a/?directConnection=true&tls=true&tlsCAFile=ca&tlsCertificateKeyFile=k&tlsCertificateKeyFilePassword=s&tlsAllowInvalidHostnames=true";
        let old = [
            "-h",
            "a",
            "--ssl",
            "--sslCAFile",
            "ca",
            "--sslPEMKeyFile",
            "k",
            "--sslPEMKeyPassword=s",
            "--sslAllowInvalidHostnames",
        ];
        let new = [
            "-h",
            "a",
            "--tls",
            "--tlsCAFile=ca",
            "--tlsCertificateKeyFile=k",
            "--tlsCertificateKeyFilePassword",
            "s",
            "--tlsAllowInvalidHostnames",
        ];
        assert_eq!(uri(&old).as_deref(), Some(expected));
        assert_eq!(uri(&new).as_deref(), Some(expected));
        // A connection without TLS has nothing to verify.
        assert_eq!(uri(&["-h", "a", "--tlsInsecure"]).as_deref(), Some("mongodb://a/?directConnection=true"));
    }

    #[test]
    fn secrets_come_from_a_file_that_flags_win_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "password: secret\nuri: mongodb://a/\n").unwrap();
        let config = file.path().to_str().unwrap();
        assert_eq!(uri(&["--config", config, "-u", "x"]).as_deref(), Some("mongodb://x:secret@a/"));
        assert_eq!(
            uri(&["--config", config, "-u", "x", "-p", "y", "--uri", "mongodb://b/"]).as_deref(),
            Some("mongodb://x:y@b/")
        );
        assert!(!format!("{:?}", line(&["--config", config]).deployment).contains("secret"));
    }

    #[test]
    fn what_contradicts_or_is_not_there_is_refused_by_name() {
        for (bad, named) in [
            (&["--uri", "mongodb://a/", "-h", "b"][..], "--host"),
            (&["--uri", "mongodb://a/", "mongodb://b/"], "--uri"),
            (&["mongodb://a/", "mongodb://b/"], "two connection strings"),
            (&["-p", "x", "-h", "a"], "--password"),
            (&["-h", "a", "--port", "x"], "--port"),
            (&["-h", "a", "--authenticationMechanism", "GSSAPI"], "GSSAPI"),
            (&["-h", "a", "--sslCRLFile", "f"], "--sslCRLFile"),
            (&["-h", "a", "--sslFIPSMode"], "--sslFIPSMode"),
            (&["--dbpath", "/data"], "--dbpath"),
            (&["--config", "/nowhere", "-h", "a"], "--config"),
        ] {
            let error = uri_of(bad, None).unwrap_err();
            assert!(error.told(Face::CommandLine).0.contains(named) && error.exit_code() == 2, "{bad:?}: {error}");
        }
        let uri = MongoUri::parse(Role::Source, "mongodb://a/shop").unwrap();
        assert!(database(Some("crm"), &uri).unwrap_err().to_string().contains("--db"));
        assert_eq!(database(None, &uri).unwrap(), Some("shop"));
    }

    #[test]
    fn verbosity_adds_up() {
        for (args, level) in [
            (&["-v"][..], 1),
            (&["-vvvv"], 4),
            (&["-v", "-v"], 2),
            (&["--verbose=3"], 3),
            (&["--verbose"], 1),
            (&["-v", "--quiet"], 0),
            (&["-vh", "a"], 1),
        ] {
            assert_eq!(line(args).deployment.verbosity(), level, "{args:?}");
        }
        assert!(Line::try_parse_from(["x", "--verbose=much"]).is_err());
    }

    #[test]
    fn hints_speak_of_the_flags_that_there_are() {
        let error = Error::usage("x").hint("choose [[mode]] replace or merge, or [[exclude]] it");
        let error = in_flags_of(&[("--drop", "--mode replace or merge"), ("--nsExclude", "--exclude")], error);
        assert_eq!(error.hint_text(), Some("choose --drop, or --nsExclude it"));
    }
}
