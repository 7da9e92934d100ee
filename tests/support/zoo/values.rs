//! `zoo.types` and related collections: every BSON type with its extreme values, and malformed
//! values that servers keep.

use bson::{Bson, DateTime, JavaScriptCodeWithScope, RawDocumentBuf, Regex, Timestamp, doc};

use super::Zoo;
use super::raw::{Raw, binary, string};

const DB: &str = "zoo";

pub(super) async fn fill(zoo: &mut Zoo, false_column: bool) {
    let typed = typed(zoo);
    zoo.insert(DB, "types", typed).await;
    zoo.insert_raw(DB, "types", malformed()).await;
    if false_column {
        zoo.insert_raw(DB, "types", [Raw::with_id("false_column").element(0x05, "v", binary(7, b"column")).build()]).await;
    }
    zoo.insert_raw(DB, "ids", ids()).await;
    fill_empty_timestamps(zoo).await;
}

/// Documents of the largest size, and one ordinary document beside them.
pub(super) async fn fill_large(zoo: &mut Zoo) {
    let most = (16 << 20) - 64;
    let noise = zoo.bytes(most);
    zoo.insert(DB, "large", [doc! {"_id": 1, "v": noise}]).await;
    zoo.insert(DB, "large", [doc! {"_id": 2, "v": "s".repeat(most)}, doc! {"_id": 3}]).await;
}

fn typed(zoo: &mut Zoo) -> Vec<bson::Document> {
    let mut nest = doc! {"end": 1};
    for _ in 0..90 {
        nest = doc! {"d": nest};
    }
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let regex = |pattern: &str, options: &str| {
        Bson::RegularExpression(Regex { pattern: pattern.try_into().unwrap(), options: options.try_into().unwrap() })
    };
    let stamp = |time, increment| Bson::Timestamp(Timestamp { time, increment });
    let binary = |subtype: u8, bytes: &[u8]| {
        Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::from(subtype), bytes: bytes.to_vec() })
    };
    let dollar = if zoo.takes("names that begin with $") { "$x" } else { "x$" };
    let scoped = JavaScriptCodeWithScope { code: "f".into(), scope: doc! {"x": 1, "y": {"z": 2}} };
    vec![
        doc! {"_id": "double", "v": [0.0, -0.0, 1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5e-324, f64::MAX]},
        doc! {"_id": "string", "v": ["", "é", "日本", "a\0b", "\u{1F600}", "x".repeat(70_000)]},
        doc! {"_id": "document", "v": {"": 1, "a": {}, "b": {"c": {"d": []}}}},
        doc! {"_id": "array", "v": [[], [[]], [1, [2, [3]]], (0..1200).collect::<Vec<i32>>()]},
        doc! {"_id": "deep", "v": nest},
        doc! {"_id": "binary", "v": [binary(0, b""), binary(0, b"x"), binary(128, &[b'y'; 300]), binary(5, b"z"),
        binary(3, &[1; 16]), binary(4, &[7; 16]), binary(6, b"encrypted"), binary(255, b"own")]},
        doc! {"_id": "objectid", "v": zoo.object_id()},
        doc! {"_id": "bool", "v": [true, false]},
        doc! {"_id": "null", "v": Bson::Null},
        doc! {"_id": "regex", "v": [regex("a.*b", "imsx"), regex("", "")]},
        doc! {"_id": "code", "v": Bson::JavaScriptCode("function(){return 1}".to_owned())},
        doc! {"_id": "code_scope", "v": scoped},
        doc! {"_id": "int32", "v": [0, -1, i32::MAX, i32::MIN]},
        doc! {"_id": "int64", "v": [0_i64, 1_i64, i64::MAX, i64::MIN]},
        doc! {"_id": "same_number", "i": 1, "l": 1_i64, "d": 1.0, "n": decimal("1"), "n2": decimal("1.00")},
        doc! {"_id": "decimal", "v": [decimal("NaN"), decimal("Infinity"), decimal("-0"),
        decimal("9.999999999999999999999999999999999E+6144"), decimal("1E-6176")]},
        doc! {"_id": "timestamp", "v": [stamp(0, 1), stamp(u32::MAX, u32::MAX)]},
        doc! {"_id": "minmax", "v": [Bson::MinKey, Bson::MaxKey]},
        doc! {"_id": "dbref", "v": {"$ref": "other", "$id": zoo.object_id(), "$db": "otherdb"}},
        doc! {"_id": "keys", "a.b": 1, dollar: 2, "": 3, "a": {"$y": 4, "z.w": 5, "": {"": 6}}, "ключ": 7},
        doc! {"first": 1, "_id": "not first", "_Id": 2, "id": 3},
    ]
}

fn malformed() -> Vec<RawDocumentBuf> {
    let of = Raw::with_id;
    let date = |key, millis: i64| (0x09, key, millis.to_le_bytes());
    let mut far = of("date_far");
    for (kind, key, value) in [date("lo", i64::MIN), date("hi", i64::MAX), date("z", 0)] {
        far = far.element(kind, key, value);
    }
    let mut deepest = Raw::new().int32("end", 1);
    for _ in 0..170 {
        deepest = Raw::new().document("d", deepest);
    }
    let stamp = [0; 8];
    vec![
        far.build(),
        of("undefined").element(0x06, "v", b"").build(),
        of("symbol").element(0x0E, "v", string("sym")).build(),
        of("dbpointer").element(0x0C, "v", [string("db.c"), (0..12).collect()].concat()).build(),
        of("binary_old").element(0x05, "v", binary(2, &[&4_i32.to_le_bytes()[..], b"abcd"].concat())).build(),
        of("uuid_short").element(0x05, "v", binary(4, b"not sixteen")).build(),
        of("duplicate_keys").int32("a", 1).int32("a", 2).document("d", Raw::new().int32("b", 1).int32("b", 2)).build(),
        of("array_odd_keys").element(0x04, "v", Raw::new().int32("5", 1).int32("5", 2).into_bytes()).build(),
        of("array_named_keys").element(0x04, "v", Raw::new().int32("x", 1).int32("", 2).into_bytes()).build(),
        of("nan_payload").element(0x01, "v", [1, 0, 0, 0, 0, 0, 0xF8, 0x7F]).build(),
        of("nan_negative").element(0x01, "v", [0, 0, 0, 0, 0, 0, 0xF8, 0xFF]).build(),
        of("decimal_not_canonical").element(0x13, "v", [0xFF; 16]).build(),
        of("utf8_value").element(0x02, "v", string(b"\xFF\xC0\x80 lone \xED\xA0\x80")).build(),
        of("utf8_key").int32(b"\xFF\xFE", 1).document("in", Raw::new().int32(b"\xC3\x28", 2)).build(),
        of("utf8_code").element(0x0D, "v", string(b"\xFF")).element(0x0E, "s", string(b"\xFE")).build(),
        of("utf8_regex").element(0x0B, "v", b"\xFF\0i\0").build(),
        of("regex_odd_options").element(0x0B, "v", b"a\0xmi\0").build(),
        of("empty_timestamp_inside")
            .document("in", Raw::new().element(0x11, "v", stamp))
            .element(0x04, "list", Raw::new().element(0x11, "0", stamp).into_bytes())
            .build(),
        of("deepest").document("v", deepest).build(),
        of("empty_keys").int32("", 1).document("", Raw::new().int32("", 2)).build(),
    ]
}

/// Every type that an `_id` may have; no two values compare equal.
fn ids() -> Vec<RawDocumentBuf> {
    let id = |kind: u8, value: &[u8]| Raw::new().element(kind, "_id", value).int32("kind", i32::from(kind)).build();
    let scope = Raw::new().int32("x", 1).into_bytes();
    let code = string("f");
    let length = i32::try_from(4 + code.len() + scope.len()).unwrap().to_le_bytes();
    vec![
        id(0xFF, b""),
        id(0x7F, b""),
        id(0x0A, b""),
        id(0x01, &f64::NAN.to_le_bytes()),
        id(0x01, &f64::NEG_INFINITY.to_le_bytes()),
        id(0x01, &(-0.0_f64).to_le_bytes()),
        id(0x01, &1.5_f64.to_le_bytes()),
        id(0x10, &7_i32.to_le_bytes()),
        id(0x12, &i64::MAX.to_le_bytes()),
        id(0x13, &[0x3A, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3C, 0x30]), /* 3.14 */
        id(0x02, &string("")),
        id(0x02, &string("text")),
        id(0x02, &string(b"\xFF\xFE not UTF-8")),
        id(0x02, &string(b"a\0b")),
        id(0x0E, &string("symbol")),
        id(0x03, &Raw::new().into_bytes()),
        id(0x03, &Raw::new().int32("", 1).int32("a", 2).into_bytes()),
        id(0x03, &Raw::new().int32("a", 2).int32("", 1).into_bytes()),
        id(0x03, &Raw::new().int32(b"\xFF", 1).into_bytes()),
        id(0x05, &binary(0, b"")),
        id(0x05, &binary(4, &[9; 16])),
        id(0x05, &binary(3, &[9; 16])),
        id(0x05, &binary(2, &[&4_i32.to_le_bytes()[..], b"abcd"].concat())),
        id(0x07, &[0; 12]),
        id(0x08, &[0]),
        id(0x08, &[1]),
        id(0x09, &i64::MIN.to_le_bytes()),
        id(0x09, &i64::MAX.to_le_bytes()),
        id(0x11, &[0; 8]),
        id(0x11, &[0xFF; 8]),
        id(0x0C, &[string("db.c"), vec![3; 12]].concat()),
        id(0x0D, &code),
        id(0x0F, &[&length[..], &code, &scope].concat()),
    ]
}

/// On a plain insert, the server would replace a Timestamp(0, 0) at the top level. An update by
/// pipeline keeps it.
async fn fill_empty_timestamps(zoo: &mut Zoo) {
    let empty = doc! {"$literal": Timestamp { time: 0, increment: 0 }};
    zoo.insert(DB, "types", [doc! {"_id": "empty_timestamp"}]).await;
    let set = doc! {"$set": {"v": &empty, "in": {"v": &empty}}};
    zoo.run(DB, doc! {"update": "types", "updates": [{"q": {"_id": "empty_timestamp"}, "u": [set]}]}).await;

    // Beside values that a rewrite in the server's query language would probably change.
    let [odd_name, inner_name] = if zoo.takes("names that begin with $") { ["$odd", "$x"] } else { ["odd$", "x$"] };
    let odd = Raw::with_id("empty_timestamp_odd")
        .element(0x01, "nan", [1, 0, 0, 0, 0, 0, 0xF8, 0x7F])
        .element(0x02, "text", string(b"\xFF"))
        .element(0x06, "undefined", b"")
        .element(0x09, "date", i64::MAX.to_le_bytes())
        .document(odd_name, Raw::new().int32(inner_name, 1).int32("a.b", 2).int32("a.b", 3))
        .int32("a.b", 4)
        .int32("", 5);
    zoo.insert_raw(DB, "types", [odd.build()]).await;
    let set = doc! {"$set": {"v": &empty, "w": &empty}};
    zoo.run(DB, doc! {"update": "types", "updates": [{"q": {"_id": "empty_timestamp_odd"}, "u": [set]}]}).await;

    let date = |millis| DateTime::from_millis(millis);
    zoo.insert(DB, "stamped", (0..20).map(|i| doc! {"_id": i, "at": date(i), "ts": Bson::Null})).await;
    let set = doc! {"$set": {"ts": &empty}};
    zoo.run(DB, doc! {"update": "stamped", "updates": [{"q": {}, "u": [set], "multi": true}]}).await;
}
