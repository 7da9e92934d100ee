//! Renaming by patterns, and its reversal.

use bsonvault::names::{Namespace, NamespaceRename};
use proptest::prelude::*;

fn is_namespace(text: &str) -> bool {
    text.split_once('.').is_some_and(|(database, collection)| !database.is_empty() && !collection.is_empty())
}

fn renamed(rule: &str, namespace: &str) -> Option<String> {
    let (database, collection) = namespace.split_once('.').unwrap();
    let rule = NamespaceRename::parse(rule).unwrap();
    let new = rule.apply(&Namespace::new(database, collection)).unwrap();
    if let Some(new) = &new {
        assert_eq!(rule.reverse(new).map(|old| old.to_string()).as_deref(), Some(namespace));
    }
    new.map(|new| new.to_string())
}

#[test]
fn a_star_carries_over_what_it_stood_for() {
    assert_eq!(renamed("shop.orders=shop.old", "shop.orders").as_deref(), Some("shop.old"));
    assert_eq!(renamed("shop.orders=shop.old", "shop.orders2"), None);
    assert_eq!(renamed("shop.*=copy.*", "shop.a.b").as_deref(), Some("copy.a.b"));
    assert_eq!(renamed("*=x.*", "shop.a").as_deref(), Some("x.shop.a"));
    assert_eq!(renamed("*.*_log=*.log_*", "shop.a_log").as_deref(), Some("shop.log_a"));
    assert_eq!(renamed("shop.*_v*=shop.v*.*", "shop.a_v_v2").as_deref(), Some("shop.va._v2"));
    assert_eq!(renamed("shop.*.x=shop.*.y", "shop.y"), None);
    assert_eq!(renamed(r"shop.a\=b\*=shop.c", "shop.a=b*").as_deref(), Some("shop.c"));
}

#[test]
fn what_could_be_no_rule_is_refused() {
    for bad in ["", "shop.a", "shop=copy", "a.b=c.*", "*.*=x.*", "a.b=c.d=e.f", "a.b=c\\", "a.=b.c", "a.b=.c"] {
        let error = NamespaceRename::parse(bad).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{bad:?}");
    }
    let rule = NamespaceRename::parse("*=*").unwrap();
    assert_eq!(rule.apply(&Namespace::new("a", "b")).unwrap(), Some(Namespace::new("a", "b")));
    let rule = NamespaceRename::parse("shop*=*").unwrap();
    assert!(rule.apply(&Namespace::new("shop", "x")).is_err());
}

/// Pieces that are easily confused, and the characters with a meaning in a rule.
fn piece() -> impl Strategy<Value = String> {
    r"[ab.=*\\]{0,4}"
}

fn escaped(piece: &str) -> String {
    piece.chars().flat_map(|c| if "=*\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

proptest! {
    #[test]
    fn a_rule_of_one_star_is_undone_by_its_reverse(from in [piece(), piece()], to in [piece(), piece()], run in piece()) {
        let side = |pieces: &[String; 2]| format!("{}*{}", escaped(&pieces[0]), escaped(&pieces[1]));
        let rule = NamespaceRename::parse(&format!("{}={}", side(&from), side(&to))).unwrap();
        let full = |pieces: &[String; 2]| format!("{}{run}{}", pieces[0], pieces[1]);
        let (old, new) = (full(&from), full(&to));
        prop_assume!(is_namespace(&old));
        let (database, collection) = old.split_once('.').unwrap();
        let old = Namespace::new(database, collection);
        match rule.apply(&old) {
            Ok(renamed) => {
                prop_assert_eq!(renamed.as_ref().map(ToString::to_string), Some(new));
                prop_assert_eq!(renamed.and_then(|new| rule.reverse(&new)), Some(old));
            }
            Err(_) => prop_assert!(!is_namespace(&new)),
        }
    }

    #[test]
    fn what_a_rule_makes_has_the_pieces_of_its_right_side(from in proptest::collection::vec(piece(), 1..4), text in "[ab.]{3,12}") {
        let stars: Vec<String> = from.iter().map(|piece| escaped(piece)).collect();
        prop_assume!(stars.len() > 1 || is_namespace(&from[0]));
        let rule = NamespaceRename::parse(&format!("{}=db.{}", stars.join("*"), vec!["x"; stars.len()].join("*"))).unwrap();
        prop_assume!(is_namespace(&text));
        let (database, collection) = text.split_once('.').unwrap();
        if let Some(new) = rule.apply(&Namespace::new(database, collection)).unwrap() {
            let literal: usize = from.iter().map(String::len).sum();
            prop_assert_eq!(new.collection.len(), text.len() - literal + from.len());
            prop_assert!(new.collection.starts_with('x') && new.collection.ends_with('x') && new.database == "db");
        }
    }
}
