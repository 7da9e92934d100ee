//! No cycles between the files of a room. Files that use each other, directly or indirectly, can
//! only be understood and changed together.
//!
//! A file uses another one if it names an item of it, by `use` or by a path. What counts is where
//! the item is defined, not the path that names it: re-exported items belong to the children. So a
//! parent that only declares its children and re-exports their items uses none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{code_of, sources};

/// A module's path in its room; empty for the room itself.
type Module = Vec<String>;

/// A name from a `use`: what it is called here, its path, and whether it is re-exported.
struct Import {
    name: String,
    path: Vec<String>,
    passed_on: bool,
}

struct File {
    imports: Vec<Import>,
    /// All paths outside of `use`, including single names.
    paths: BTreeSet<Vec<String>>,
}

/// The files of a room.
struct Room<'a> {
    name: &'a str,
    files: BTreeMap<Module, File>,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

/// The single paths of a tree such as `a::{b, c::{self, D as E}}`, behind a prefix.
fn leaves(prefix: &[String], tree: &str, passed_on: bool, found: &mut Vec<Import>) {
    if let Some((head, group)) = tree.split_once('{') {
        let prefix = [prefix, &segments(head)].concat();
        let group = group.rsplit_once('}').unwrap().0;
        let mut depth = 0;
        for part in group.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        }) {
            leaves(&prefix, part, passed_on, found);
        }
    } else if !tree.trim().is_empty() {
        let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
        let mut path = [prefix, &segments(path)].concat();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.unwrap_or(path.last().unwrap()).to_owned();
        found.push(Import { name, path, passed_on });
    }
}

impl File {
    fn of(text: &str) -> Self {
        let (mut imports, mut rest) = (Vec::new(), String::new());
        let code = code_of(text);
        let mut code = code.as_str();
        while let Some((at, _)) = code.match_indices("use ").find(|(at, _)| !code[..*at].ends_with(is_word)) {
            let (before, statement) = (&code[..at], &code[at + 4..]);
            let (tree, after) = statement.split_once(';').unwrap_or((statement, ""));
            let line = before.rsplit('\n').next().unwrap();
            leaves(
                &[],
                &tree.split_whitespace().collect::<Vec<_>>().join(" "),
                line.trim_start().starts_with("pub"),
                &mut imports,
            );
            rest.push_str(before);
            code = after;
        }
        rest.push_str(code);
        let paths = rest.split(|c| !is_word(c) && c != ':').map(segments).filter(|path| !path.is_empty()).collect();
        Self { imports, paths }
    }
}

impl<'a> Room<'a> {
    /// A room of files, each given by its path below `src` and its text.
    fn of(name: &'a str, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| {
            let below = path.trim_end_matches(".rs").trim_end_matches("/mod");
            (below.split('/').skip(1).map(str::to_owned).collect(), File::of(text))
        });
        Self { name, files: files.collect() }
    }

    /// The file that defines what this path names in this file, if it is in this room and is not a
    /// module itself.
    fn owner(&self, from: &Module, path: &[String], steps: usize) -> Option<Module> {
        let (mut at, mut path) = (from.clone(), path);
        match path.first()?.as_str() {
            "crate" => {
                path = path[1..].strip_prefix(&[self.name.to_owned()])?;
                at.clear();
            }
            "self" | "super" => {
                while let Some(up) = path.first().filter(|s| ["self", "super"].contains(&s.as_str())) {
                    if up == "super" {
                        at.pop()?;
                    }
                    path = &path[1..];
                }
            }
            // A single name belongs to this room only if it is a child's, or if a `use` imports it,
            // which counts by itself.
            first if !self.is_known(from, first) => return None,
            _ => {}
        }
        while let Some(next) = path.first() {
            let child = [at.as_slice(), std::slice::from_ref(next)].concat();
            if self.files.contains_key(&child) {
                (at, path) = (child, &path[1..]);
            } else if let Some(import) = self.files[&at].imports.iter().find(|i| i.name == *next) {
                let whole = [&import.path, &path[1..]].concat();
                return self.owner(&at, &whole, steps.checked_sub(1)?);
            } else {
                return Some(at);
            }
        }
        None
    }

    fn is_known(&self, from: &Module, name: &str) -> bool {
        let child = [from.as_slice(), &[name.to_owned()]].concat();
        self.files.contains_key(&child) || self.files[from].imports.iter().any(|i| i.name == name && i.path[0] != name)
    }

    /// The files that each file uses.
    fn uses(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut uses = BTreeMap::new();
        for (module, file) in &self.files {
            let imported = file.imports.iter().filter(|i| !i.passed_on).map(|i| &i.path);
            let owners = imported.chain(&file.paths).filter_map(|path| self.owner(module, path, 8));
            uses.insert(module.clone(), owners.filter(|owner| owner != module).collect());
        }
        uses
    }

    /// The file's path below `src`, without its extension.
    fn path(&self, module: &Module) -> String {
        [std::slice::from_ref(&self.name.to_owned()), module].concat().join("/")
    }

    /// The cycles, each with the items that connect its files.
    fn circles(&self) -> Vec<String> {
        let uses = self.uses();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> = uses.keys().map(|from| (from, reached(&uses, from))).collect();
        let mut told = BTreeSet::new();
        let mut found = Vec::new();
        for (from, to) in &reached {
            let circle: BTreeSet<&Module> = to.iter().copied().filter(|other| reached[other].contains(from)).collect();
            if circle.is_empty() || !told.insert(circle.clone()) {
                continue;
            }
            let lines = circle.iter().map(|module| {
                let others: Vec<String> = uses[*module].iter().filter(|m| circle.contains(m)).map(|m| self.path(m)).collect();
                format!("  {} uses {}", self.path(module), others.join(", "))
            });
            found.push(lines.collect::<Vec<_>>().join("\n"));
        }
        found
    }
}

/// The files that a file uses directly or indirectly; itself only if there is a cycle.
fn reached<'a>(uses: &'a BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in uses[module].iter().filter_map(|next| uses.get_key_value(next)) {
            if found.insert(next.0) {
                open.push(next.0);
            }
        }
    }
    found
}

#[test]
fn no_circle_of_files_is_in_a_room() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for file in sources(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        if !path.ends_with("/tests.rs") {
            let room = path.split(['/', '.']).next().unwrap().to_owned();
            rooms.entry(room).or_default().push((path, std::fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(rooms.len() > 15, "only {} rooms were found", rooms.len());
    let mut found = Vec::new();
    for (name, files) in &rooms {
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        found.extend(Room::of(name, &files).circles().into_iter().map(|circle| format!("a circle in {name}:\n{circle}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_and_what_is_none_is_not() {
    let circles = |files: &[(&str, &str)]| Room::of("room", files).circles().len();
    let there = ("room/a.rs", "use super::b::f;\npub struct A;");
    for back in [
        "use super::a::A;",
        "use crate::{error::Error, room::a::{self, A}};",
        "fn g() -> super::a::A { todo!() }",
        "use super::a;\nfn g() -> a::A { todo!() }",
        "use super::A;",
        "use super::A as Other;",
    ] {
        assert_eq!(circles(&[("room/mod.rs", "mod a;\nmod b;\npub use self::a::A;"), there, ("room/b.rs", back)]), 1, "{back}");
    }
    for none in [
        "// use super::a::A;",
        "/* super::a::A */",
        "/// As [`super::a::A`].\npub fn f() {}",
        "const TEXT: &str = \"use super::a::A;\";",
        "pub fn f() {}\n#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n",
        "pub use super::a::A;",
        "use super::a;",
        "use crate::other::a::A;",
        "let a = a.b();",
    ] {
        assert_eq!(circles(&[("room/mod.rs", "mod a;\nmod b;\npub use self::a::A;"), there, ("room/b.rs", none)]), 0, "{none}");
    }
    // A parent that re-exports its child's items, and one that uses them.
    let child = ("room/x/y.rs", "use super::{Own, Z};\npub struct Y(Own);");
    let other = ("room/x/z.rs", "pub struct Z;");
    let passes_on = "mod y;\nmod z;\npub use self::y::Y;\npub use self::z::Z;\npub struct Own;";
    assert_eq!(circles(&[("room.rs", ""), ("room/x.rs", passes_on), child, other]), 0);
    for parent in [
        "mod y;\nmod z;\npub use self::y::Y;\npub use self::z::Z;\npub struct Own;\nfn f(y: &Y) {}",
        "mod y;\nmod z;\npub use self::z::Z;\npub struct Own;\nfn f(y: &y::Y) {}",
        "mod y;\nmod z;\npub use self::z::Z;\nuse self::y::Y;\npub struct Own;",
    ] {
        assert_eq!(circles(&[("room.rs", ""), ("room/x.rs", parent), child, other]), 1, "{parent}");
    }
    // A cycle of several files, and two separate cycles.
    let around = |b: &str, c: &str| {
        let [b, c] = [("B", b), ("C", c)].map(|(own, used)| format!("{used}\npub struct {own};"));
        let files = [("room/a.rs", "use super::b::B;\npub struct A;"), ("room/b.rs", &b), ("room/c.rs", &c), ("room.rs", "")];
        Room::of("room", &files).circles()
    };
    let found = around("use super::c::C;", "use super::a::A;");
    assert_eq!(found, ["  room/a uses room/b\n  room/b uses room/c\n  room/c uses room/a"]);
    assert_eq!(around("use super::a::A;", "use super::a::A;").len(), 1);
    assert!(around("use super::c::C;", "").is_empty());
}
