//! Selects the collections of a backup that are imported, and their new names. Pure.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use super::options::ImportOptions;
use super::views;
use crate::engine::asked_for::AskedFor;
use crate::error::{Error, ErrorKind, Result};
use crate::few::{Few, LISTED};
use crate::format::manifest::{Collection, CollectionKind, LeftOut, TEMPORARY};
use crate::names::{Namespace, NamespacePattern, SYSTEM_DATABASES, check_database};

/// A collection that is imported, and its name in the target. A view's options already use the new
/// names.
#[derive(Debug, Clone)]
pub struct Selected<'a> {
    /// As in the backup, if nothing of it changes.
    pub(super) collection: Cow<'a, Collection>,
    pub(super) to: Namespace,
}

/// How names change on the way.
#[derive(Debug)]
pub(super) struct Naming<'a> {
    options: &'a ImportOptions,
    /// The database that replaces the backup's single one.
    database: Option<String>,
}

/// Selects and renames. A requested database name requires a single imported database. The database
/// in the URI's path may be there for other programs: it counts only if a single database is
/// imported.
pub(super) fn select<'a, 'o>(
    collections: Cow<'a, [Collection]>,
    left_out: &[LeftOut],
    options: &'o ImportOptions,
    in_path: Option<&str>,
) -> Result<(Vec<Selected<'a>>, Naming<'o>)> {
    refuse_idle(&collections, left_out, options)?;
    let mut wanted: Vec<Cow<'a, Collection>> = match collections {
        Cow::Borrowed(all) => all.iter().map(Cow::Borrowed).collect(),
        Cow::Owned(all) => all.into_iter().map(Cow::Owned).collect(),
    };
    wanted.retain(|c| !c.is_temporary() && options.filter.takes(&c.namespace()));
    let naming = Naming { options, database: database(&wanted, options, in_path)? };
    let mut selected = Vec::with_capacity(wanted.len());
    for collection in wanted {
        let to = naming.of(&collection.namespace())?;
        check(&to)?;
        selected.push(Selected { collection, to });
    }
    refuse_collisions(&selected)?;
    for Selected { collection, to } in selected.iter_mut().filter(|s| s.collection.kind == CollectionKind::View) {
        let renamed = views::renamed(&collection.options, &collection.namespace(), to, |name| naming.of(name))?;
        collection.to_mut().options = renamed;
    }
    Ok((selected, naming))
}

/// Refuses patterns and rules that match nothing, and those that select nothing.
fn refuse_idle(collections: &[Collection], left_out: &[LeftOut], options: &ImportOptions) -> Result<()> {
    let filter = &options.filter;
    let is_idle = |p: &&NamespacePattern| !collections.iter().any(|c| p.matches(&c.namespace()));
    // Patterns may exclude what the backup skipped already.
    let is_of_left_out =
        |p: &&NamespacePattern| left_out.iter().any(|l| p.matches(&Namespace::new(&*l.database, &*l.collection)));
    let excludes = filter.exclude.iter().filter(|_| !options.is_first_copy);
    let mut idle = filter.include.iter().filter(is_idle).chain(excludes.filter(|p| is_idle(p) && !is_of_left_out(p)));
    if let Some(idle) = idle.next() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the pattern {:?} matches no namespace of the backup", idle.as_str()),
        )
        .hint(
            "`bsonvault show` lists them; patterns are case-sensitive, and '*' stands for any characters; quote it in the shell",
        ));
    }
    for rename in &options.renames {
        let mut matches = false;
        for collection in collections {
            matches |= rename.apply(&collection.namespace())?.is_some();
        }
        if !matches {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("[[rename]] {:?} matches no namespace of the backup", rename.as_str()),
            )
            .hint("`bsonvault show` lists them; names are case-sensitive"));
        }
    }
    let lasting = || collections.iter().filter(|c| !c.is_temporary());
    if !lasting().any(|c| options.filter.takes(&c.namespace())) && lasting().next().is_some() {
        let error = Error::usage("[[database]], [[include]] and [[exclude]] leave nothing of the backup to import");
        let left_out = temporary(collections, options).into_sentences();
        return Err(if left_out.is_empty() { error } else { error.hint(format!("skipped: {}", left_out.join("; "))) });
    }
    Ok(())
}

/// The temporary collections that are skipped, in words.
pub(super) fn temporary(collections: &[Collection], options: &ImportOptions) -> Few {
    let left_out = collections.iter().filter(|c| c.is_temporary() && options.filter.takes(&c.namespace()));
    let mut named = Few::up_to(LISTED);
    named.extend(left_out.map(|c| format!("{}: {TEMPORARY}", c.namespace())));
    named
}

fn database(wanted: &[Cow<'_, Collection>], options: &ImportOptions, in_path: Option<&str>) -> Result<Option<String>> {
    // A rename rule overrides the database name.
    let mut databases: BTreeSet<&str> = BTreeSet::new();
    for collection in wanted {
        let mut renamed = false;
        for rename in &options.renames {
            renamed |= rename.apply(&collection.namespace())?.is_some();
        }
        if !renamed {
            databases.insert(&collection.database);
        }
    }
    let asked = options.database.as_deref();
    // A database that the user chose by name is not renamed by the URI's path.
    let in_path = in_path.filter(|_| databases.len() == 1 && options.filter.databases.is_empty() && !options.is_first_copy);
    let Some(new) = asked.or(in_path) else { return Ok(None) };
    check_database(new)?;
    if databases.len() > 1 {
        let held: Vec<&str> = databases.iter().copied().collect();
        return Err(Error::usage(format!(
            "the database name {new:?} is for one database, and the backup holds {}: {}",
            held.len(),
            held.join(", ")
        ))
        .hint("leave it out, choose one with [[database]], or name each by [[rename]]"));
    }
    Ok(Some(new.to_owned()))
}

impl Naming<'_> {
    /// The target name of a namespace of the backup.
    pub(super) fn of(&self, namespace: &Namespace) -> Result<Namespace> {
        for rename in &self.options.renames {
            if let Some(new) = rename.apply(namespace)? {
                return Ok(new);
            }
        }
        let database = self.database.as_deref().unwrap_or(&namespace.database);
        Ok(Namespace::new(database, namespace.collection.as_str()))
    }

    /// Whether this namespace of the target has a name that the import could have written:
    /// `--drop-extra` drops nothing else. `databases` are those of the backup.
    pub(super) fn is_in_scope(&self, standing: &Namespace, databases: &BTreeSet<String>, asked_for: &AskedFor) -> Result<bool> {
        let renamed = self.options.renames.iter().filter_map(|rename| rename.reverse(standing));
        let by_database = match &self.database {
            Some(new) if *new == standing.database => {
                databases.iter().map(|old| Namespace::new(&**old, &*standing.collection)).collect()
            }
            Some(_) => Vec::new(),
            None => vec![standing.clone()],
        };
        for name in renamed.chain(by_database) {
            let comes_here = self.of(&name)? == *standing;
            if comes_here && databases.contains(&name.database) && self.options.filter.takes(&name) && asked_for.could_have(&name)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn check(to: &Namespace) -> Result<()> {
    if SYSTEM_DATABASES.contains(&to.database.as_str()) {
        return Err(Error::new(ErrorKind::Refused, format!("cannot import as {to}: the database belongs to the server itself"))
            .hint("choose another database with [[as]] or [[rename]]"));
    }
    check_database(&to.database)?;
    let reserved = to.collection.starts_with("system.") && to.collection != "system.js";
    if to.is_of_an_import() || reserved || to.collection.contains(['$', '\0']) || to.collection.starts_with('.') {
        return Err(Error::usage(format!(
            "{to} cannot be the name of a collection: it is reserved, or has a character that no server accepts"
        ))
        .hint("choose another with [[rename]]"));
    }
    Ok(())
}

fn refuse_collisions(selected: &[Selected<'_>]) -> Result<()> {
    let mut seen: HashMap<&Namespace, Namespace> = HashMap::new();
    for Selected { collection, to } in selected {
        let from = collection.namespace();
        if let Some(other) = seen.insert(to, from.clone()) {
            if other == from {
                return Err(Error::damaged(format!("the manifest names {from} twice")));
            }
            return Err(Error::usage(format!("{other} and {from} would both be imported as {to}"))
                .hint("change [[rename]] or [[as]] so that each has a name of its own"));
        }
    }
    Ok(())
}
