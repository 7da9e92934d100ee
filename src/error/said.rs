//! Options in messages and hints, which each face names in the form that its reader can use.
//!
//! Texts hold tokens: `[[include]]`, `[[path or BACKUP_PATH]]`, or a whole command line, ``
//! [[`bsonvault import cleanup yes`]] ``. The command line turns the options in them into flags.
//! All others replace a token by the field or setting of its first option.

/// Who reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// A user of the command line.
    CommandLine,
    /// Readers of the service's answers, jobs, messages and logs, and of stored data.
    Service,
}

/// Options that are fields of requests, or settings, by their names.
const NAMED: [(&str, &str); 24] = [
    ("as", "databaseName"),
    ("deep", "deep"),
    ("dry-run", "dryRun"),
    ("exclude", "exclude"),
    ("include", "include"),
    ("mode", "mode"),
    ("undo", "undo"),
    ("source", "MONGO_URI_ATLAS"),
    ("target", "MONGO_URI_LOCAL"),
    ("path", "BACKUP_PATH"),
    ("readers", "BACKUP_READERS"),
    ("writers", "BACKUP_WRITERS"),
    ("level", "BACKUP_LEVEL"),
    ("codec", "BACKUP_CODEC"),
    ("long", "BACKUP_LONG_DISTANCE"),
    ("frame-mb", "BACKUP_FRAME_MB"),
    ("max-mbit", "BACKUP_MAX_MBIT"),
    ("adaptive-throttle", "BACKUP_POLITE"),
    ("read-preference", "BACKUP_READ_PREFERENCE"),
    ("memory-mb", "BACKUP_MEMORY_MB"),
    ("pitr-keep", "PITR_KEEP"),
    ("pitr-max-replay", "PITR_MAX_REPLAY"),
    ("delay", "SYNC_DELAY"),
    ("proof", "SYNC_PROOF"),
];

/// Options that only the command line has.
const OTHERS: &str = "address allow-concurrent allow-duplicates allow-empty allow-inconsistent allow-same cleanup database drop drop-extra \
                      drop-replaced force format host indexes keep-replaced oplog-limit out password port rename resume undo-last \
                      username with-users yes";

impl Face {
    /// The text with each token in this face's words. Brackets without an option stay unchanged.
    #[must_use]
    pub fn say(self, text: &str) -> String {
        let (mut said, mut rest) = (String::new(), text);
        while let Some((before, token)) = rest.split_once("[[") {
            said += before;
            let words = token.split_once("]]").and_then(|(inner, after)| Some((self.token(inner)?, after)));
            let (words, after) = words.unwrap_or_else(|| ("[[".to_owned(), token));
            said += &words;
            rest = after;
        }
        said + rest
    }

    fn token(self, inner: &str) -> Option<String> {
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_';
        let named = |word: &str| NAMED.iter().find(|(option, _)| *option == word).map(|(_, name)| *name);
        let is_option = |word: &str| named(word).is_some() || OTHERS.split(' ').any(|other| other == word);
        if !inner.chars().all(|c| !ends(c) || " ,()`".contains(c)) {
            return None;
        }
        let first = inner.split(ends).find(|word| is_option(word))?;
        let flagged = |piece: &str| if is_option(piece.trim_end_matches(ends)) { format!("--{piece}") } else { piece.to_owned() };
        Some(match (self, inner.strip_suffix('`').and_then(|line| line.split_once(&format!(" {first}")))) {
            (Self::CommandLine, _) => inner.split_inclusive(ends).map(flagged).collect(),
            (Self::Service, Some((verb, values))) => format!("{verb}` with {first}{values}"),
            (Self::Service, None) => named(first).map_or_else(|| format!("the command line's {first}"), str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_face_names_an_option_as_it_can_be_given() {
        for (text, flags, names) in [
            ("leave it out with [[exclude]] \"a.b\"", "leave it out with --exclude \"a.b\"", "leave it out with exclude \"a.b\""),
            ("([[as]], [[rename]])", "(--as, --rename)", "(databaseName, the command line's rename)"),
            ("set [[BACKUP_PATH or path]] to", "set BACKUP_PATH or --path to", "set BACKUP_PATH to"),
            ("[[path or BACKUP_PATH]] says", "--path or BACKUP_PATH says", "BACKUP_PATH says"),
            ("the codec ([[codec, BACKUP_CODEC]]) is", "the codec (--codec, BACKUP_CODEC) is", "the codec (BACKUP_CODEC) is"),
            ("check [[MONGO_URI_ATLAS (or source)]]", "check MONGO_URI_ATLAS (or --source)", "check MONGO_URI_ATLAS"),
            (
                "[[`bsonvault import cleanup yes`]] drops them; [[`import keep-replaced`]]",
                "`bsonvault import --cleanup --yes` drops them; `import --keep-replaced`",
                "`bsonvault import` with cleanup yes drops them; `import` with keep-replaced",
            ),
            ("[[`backup resume NAME`]] goes on", "`backup --resume NAME` goes on", "`backup` with resume NAME goes on"),
        ] {
            assert_eq!((&*Face::CommandLine.say(text), &*Face::Service.say(text)), (flags, names));
        }
    }

    #[test]
    fn brackets_of_others_stay() {
        for text in ["", "[[", "a[[0]]", "shop.[[x]] and [[[]]", "[[1, 2], [3]]", r#"[["path"]]"#, "]] [[include", "[[\u{e9}]]"] {
            assert_eq!((Face::CommandLine.say(text), Face::Service.say(text)), (text.to_owned(), text.to_owned()));
        }
        assert_eq!(Face::CommandLine.say("shop.[[x: leave it out by [[exclude]]"), "shop.[[x: leave it out by --exclude");
    }
}
