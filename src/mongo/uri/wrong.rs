//! Explains why a connection string does not parse, without any part of it that may be secret: an
//! unescaped password can end up anywhere. Pure.

/// The form of a connection string.
pub(super) const LOOKS_LIKE: &str = "the form is mongodb+srv://USER:PASSWORD@HOST/ or mongodb://HOST:PORT/?NAME=VALUE&NAME=VALUE; \
     mongodb+srv takes one host and no port; in a user's name or a password, write the characters @ : / ? & # % as %40 %3A %2F \
     %3F %26 %23 %25";

/// What to do about characters in names and passwords.
const ESCAPES: &str = "in a user's name or a password, write the characters @ : / ? & # % as %40 %3A %2F %3F %26 %23 %25";

/// What is wrong, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: &'static str,
    pub(super) todo: &'static str,
}

const fn wrong(what: &'static str, todo: &'static str) -> Option<Wrong> {
    Some(Wrong { what, todo })
}

/// What is wrong with a refused string; `None` if nothing is found.
pub(super) fn diagnose(given: &str) -> Option<Wrong> {
    if given.is_empty() {
        return wrong("it is empty", LOOKS_LIKE);
    }
    if given.starts_with(['"', '\'', '<', '`', '“']) {
        return wrong("it begins with a quotation mark or a bracket", "remove the characters around the connection string");
    }
    let Some((scheme, rest)) = given.split_once("://") else { return of_no_scheme(given) };
    of_scheme(scheme)
        .or_else(|| of_spaces(given))
        .or_else(|| of_login(rest))
        .or_else(|| of_hosts(rest, scheme == "mongodb+srv"))
        .or_else(|| of_database(rest))
        .or_else(|| of_options(rest))
}

fn of_no_scheme(given: &str) -> Option<Wrong> {
    match given.to_ascii_lowercase().starts_with("mongodb") && given.contains(':') {
        true => wrong("its scheme is not followed by ://", "write mongodb:// or mongodb+srv:// with a colon and two slashes"),
        false => wrong("it has no scheme", "begin it with mongodb:// or mongodb+srv://, for instance mongodb://HOST:PORT/"),
    }
}

fn of_scheme(scheme: &str) -> Option<Wrong> {
    match scheme {
        "mongodb" | "mongodb+srv" => None,
        _ if ["mongodb", "mongodb+srv"].contains(&scheme.trim().to_ascii_lowercase().as_str()) => {
            wrong("its scheme is not written in lower case", "begin it with mongodb:// or mongodb+srv://")
        }
        // Any other text in front of :// may be secret.
        "http" | "https" => wrong("its scheme is that of a web page", "begin it with mongodb:// or mongodb+srv://"),
        _ => wrong("its scheme is neither mongodb nor mongodb+srv", "begin it with mongodb:// or mongodb+srv://"),
    }
}

fn of_spaces(given: &str) -> Option<Wrong> {
    match given.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => wrong("it contains a space or a line break", "remove it; in a password, write a space as %20"),
        false => None,
    }
}

/// The part before the hosts. The driver ends it at the first `?`, and looks for the last `@`
/// before that.
fn of_login(rest: &str) -> Option<Wrong> {
    let (before, options) = rest.split_once('?').unwrap_or((rest, ""));
    let Some((login, _)) = before.rsplit_once('@') else {
        let is_cut = options.contains('@') && !is_a_host(before);
        return is_cut
            .then_some(Wrong { what: "the user's name or the password has a ? that is not written as %3F", todo: ESCAPES });
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    if user.is_empty() {
        return wrong("there is no user's name before the @", "write USER:PASSWORD@ in front of the host, or remove the @");
    }
    let has = |c: char| login.contains(c);
    let what = if has('@') {
        "the user's name or the password has an @ that is not written as %40"
    } else if password.contains(':') {
        "the password has a : that is not written as %3A"
    } else if has('/') {
        "the user's name or the password has a / that is not written as %2F"
    } else if has('#') || has('[') || has(']') {
        "the user's name or the password has one of # [ ] that is not written as %23 %5B %5D"
    } else if !is_escaped(login) {
        "the user's name or the password has a % that is not followed by two hexadecimal digits"
    } else {
        return None;
    };
    Some(Wrong { what, todo: ESCAPES })
}

fn of_hosts(rest: &str, is_srv: bool) -> Option<Wrong> {
    let (before, _) = rest.split_once('?').unwrap_or((rest, ""));
    let after_login = before.rsplit_once('@').map_or(before, |(_, hosts)| hosts);
    let (hosts, _) = after_login.split_once('/').unwrap_or((after_login, ""));
    if hosts.is_empty() {
        return wrong("it names no host", "write the host after the two slashes, for instance mongodb://HOST:PORT/");
    }
    let hosts: Vec<&str> = hosts.split(',').collect();
    if is_srv && hosts.len() > 1 {
        return wrong(
            "mongodb+srv takes one host, but there are several",
            "mongodb+srv takes one host: a DNS name; or begin with mongodb://",
        );
    }
    if hosts.iter().any(|host| !host.starts_with('[') && host.matches(':').count() > 1) {
        return wrong("a host has more than one colon", "write an IPv6 address in brackets, for instance [::1]:27017");
    }
    if hosts.iter().any(|host| host.is_empty() || host.starts_with(':')) {
        return wrong("a host is missing beside a comma or a colon", "write HOST:PORT,HOST:PORT");
    }
    let ports: Vec<&str> = hosts.iter().filter_map(|host| port(host)).collect();
    if is_srv && !ports.is_empty() {
        return wrong("mongodb+srv takes no port", "remove the port, or begin with mongodb://");
    }
    if ports.iter().any(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return wrong("the port of a host is not a number from 1 to 65535", ESCAPES);
    }
    match hosts.iter().any(|host| !is_escaped(host)) {
        true => wrong("a host has a % that is not followed by two hexadecimal digits", "write / in a socket's path as %2F"),
        false => None,
    }
}

fn of_database(rest: &str) -> Option<Wrong> {
    let (before, _) = rest.split_once('?').unwrap_or((rest, ""));
    let after_login = before.rsplit_once('@').map_or(before, |(_, hosts)| hosts);
    let (_, database) = after_login.split_once('/')?;
    match database.contains(['/', '\\', '"', '$', ' ']) || !is_escaped(database) {
        true => wrong(
            "the part after the host and a slash is not the name of a database",
            "it must not contain / \\ \" $; options come after a ?, for instance mongodb://HOST/DATABASE?NAME=VALUE",
        ),
        false => None,
    }
}

fn of_options(rest: &str) -> Option<Wrong> {
    let (_, options) = rest.split_once('?')?;
    match options.split('&').any(|pair| pair.split_once('=').is_none_or(|(name, value)| name.is_empty() || value.is_empty())) {
        true => wrong("an option after the ? has no name or no value", "write them as ?NAME=VALUE&NAME=VALUE"),
        false => None,
    }
}

/// Whether this looks like hosts and a database, and not like part of a login.
fn is_a_host(text: &str) -> bool {
    let hosts = text.split_once('/').map_or(text, |(hosts, _)| hosts);
    hosts.split(',').all(|host| !host.is_empty() && port(host).is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)))
}

fn port(host: &str) -> Option<&str> {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after_address.split_once(':').map(|(_, port)| port)
}

/// Whether each `%` begins an escape.
fn is_escaped(text: &str) -> bool {
    let is_escape = |after: &str| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    text.split('%').skip(1).all(is_escape)
}

#[cfg(test)]
mod tests {
    use crate::mongo::{MongoUri, Role};

    #[test]
    fn what_is_wrong_is_told_and_nothing_that_may_be_secret() {
        for (bad, told) in [
            ("", "empty"),
            ("hunter2.example.net", "no scheme"),
            ("hunter2:27017", "no scheme"),
            ("'mongodb://u:hunter2@h/'", "quotation"),
            ("mongodb:/h/hunter2", "not followed by ://"),
            ("MongoDB://u:hunter2@h/", "lower case"),
            ("https://u:hunter2@h/", "web page"),
            ("postgres://u:hunter2@h/", "neither"),
            ("mongodb://u:hunt@er2@h/", "%40"),
            ("mongodb://u:hunt:er2@h/", "%3A"),
            ("mongodb://u:hunt/er2@h/", "%2F"),
            ("mongodb://u:hunt?er2@h/", "%3F"),
            ("mongodb://u:hunt#er2@h/", "%23"),
            ("mongodb://u:hunt%er2@h/", "hexadecimal"),
            ("mongodb://u:hunter2%@h/", "hexadecimal"),
            ("mongodb://", "no host"),
            ("mongodb:///shop", "no host"),
            ("mongodb://u:hunter2@/", "no host"),
            ("mongodb://h1,,h2/", "beside a comma"),
            ("mongodb://:27017/", "beside a comma or a colon"),
            ("mongodb://h:hunter2/", "65535"),
            ("mongodb://h:0/", "65535"),
            ("mongodb://h:99999/", "65535"),
            ("mongodb://h:/", "65535"),
            ("mongodb://::1:27017/", "more than one colon"),
            ("mongodb+srv://u:hunter2@h.example.net:27017/", "takes no port"),
            ("mongodb+srv://u:hunter2@a.example.net,b.example.net/", "takes one host"),
            ("mongodb://h/a/b", "name of a database"),
            ("mongodb://h/?w", "no name or no value"),
            ("mongodb://h/?=hunter2", "no name or no value"),
        ] {
            let Err(error) = MongoUri::parse(Role::Source, bad) else { panic!("{bad} is taken") };
            let all = format!("{error:?} {}", error.hint_text().unwrap_or_default());
            assert!(error.to_string().starts_with("Invalid Atlas URI format: "), "{bad}: {error}");
            assert!(error.to_string().contains(told), "{bad}: {error}");
            assert!(!all.contains("hunt") && !all.contains("er2"), "{bad}: {all}");
        }
    }
}
