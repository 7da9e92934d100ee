//! mongodump's metadata files, value by value: the meaning in each version of Extended JSON, and
//! errors with their places.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawDocumentBuf, Regex, Timestamp, doc, rawdoc};
use bsonvault::format::document::Writer;
use bsonvault::format::manifest::CollectionKind;
use bsonvault::format::metadata;
use bsonvault::format::metadata::read::{Metadata, Versions};
use bsonvault::format::metadata::text::{canonical, is_faithful};
use uuid::Uuid;

/// The options of a file of this era; another field determines the era.
fn options(modern: bool, options: &str) -> RawDocumentBuf {
    let kind = if modern { r#","type":"collection""# } else { "" };
    Metadata::parse(format!(r#"{{"options":{options}{kind}}}"#).as_bytes()).unwrap().options
}

fn error(text: &str) -> String {
    Metadata::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_file_of_today_is_read() {
    let text = br#"{"options":{"capped":true,"size":{"$numberInt":"1048576"},"max":{"$numberLong":"300"}},"indexes":[
        {"v":{"$numberInt":"2"},"key":{"b":{"$numberDouble":"-1.0"},"a":"text"},"name":"x"}],
        "uuid":"ed7588484c214030b86dd604eacdda88","collectionName":"capped","type":"collection","more":1}"#;
    let expected = Metadata {
        options: rawdoc! { "capped": true, "size": 1_048_576, "max": 300_i64 },
        indexes: vec![rawdoc! { "v": 2, "key": { "b": -1.0, "a": "text" }, "name": "x" }],
        uuid: Some(Uuid::from_u128(0xed75_8848_4c21_4030_b86d_d604_eacd_da88)),
        collection: Some("capped".into()),
        kind: Some("collection".into()),
    };
    assert_eq!(Metadata::parse(text).unwrap(), expected);
}

#[test]
fn files_of_old_tools_are_read() {
    let text = br#"{"options":{},"indexes":[{"v":1,"key":{"_id":1,"n":-1.0,"big":4294967296},"ns":"a.b","name":"_id_"}]}"#;
    let old = Metadata::parse(text).unwrap();
    let key = rawdoc! { "_id": 1, "n": -1.0, "big": 4_294_967_296_i64 };
    assert_eq!(old.indexes, [rawdoc! { "v": 1, "key": key, "ns": "a.b", "name": "_id_" }]);
    assert_eq!((old.uuid, old.collection, old.kind), (None, None, None));
    let older = br#"{options : { "create" : "c", "capped" : true }, indexes:[{ "v" : 1, "ns" : "a.c" }]}"#;
    let older = Metadata::parse(older).unwrap();
    assert_eq!(older.options, rawdoc! { "create": "c", "capped": true });
    assert_eq!(older.indexes, [rawdoc! { "v": 1, "ns": "a.c" }]);
    for empty in ["", " \n", "{}", r#"{"options":null,"indexes":null,"uuid":null,"collectionName":null,"type":null}"#] {
        assert_eq!(Metadata::parse(empty.as_bytes()).unwrap(), Metadata::default());
    }
    let dashes = br#"{"uuid":"ed758848-4c21-4030-b86d-d604eacdda88"}"#;
    assert!(Metadata::parse(dashes).unwrap().uuid.is_some());
}

#[test]
fn the_words_of_version_1_are_values_in_old_files_only() {
    let id = bson::oid::ObjectId::parse_str("0123456789abcdef01234567").unwrap();
    let both = [
        (r#"{"$oid":"0123456789abcdef01234567"}"#, Bson::ObjectId(id)),
        (r#"{"$numberLong":"-7"}"#, Bson::Int64(-7)),
        (r#"{"$date":"1970-01-01T00:00:01.5Z"}"#, Bson::DateTime(bson::DateTime::from_millis(1500))),
        (r#"{"$date":"1970-01-01T01:00:01.500+0100"}"#, Bson::DateTime(bson::DateTime::from_millis(1500))),
        (r#"{"$date":{"$numberLong":"-1500"}}"#, Bson::DateTime(bson::DateTime::from_millis(-1500))),
        (r#"{"$timestamp":{"t":4294967295,"i":2}}"#, Bson::Timestamp(Timestamp { time: u32::MAX, increment: 2 })),
        (r#"{"$undefined":true}"#, Bson::Undefined),
        (r#"{"$minKey":1}"#, Bson::MinKey),
        (r#"{"$maxKey":1}"#, Bson::MaxKey),
        (r#"{"$ref":"c","$id":{"$oid":"0123456789abcdef01234567"}}"#, Bson::Document(doc! { "$ref": "c", "$id": id })),
        ("1", Bson::Int32(1)),
        ("-2147483649", Bson::Int64(-2_147_483_649)),
        ("9223372036854775808", Bson::Double(9_223_372_036_854_775_808.0)),
        ("1.0", Bson::Double(1.0)),
        ("1e2", Bson::Double(100.0)),
        ("5e-324", Bson::Double(5e-324)),
    ];
    for (text, value) in both {
        for modern in [true, false] {
            let read = options(modern, &format!(r#"{{"a":{text}}}"#));
            assert_eq!(Bson::try_from(read.get("a").unwrap().unwrap()).unwrap(), value, "{text}");
        }
    }
    let regex = Bson::RegularExpression(Regex { pattern: "a".try_into().unwrap(), options: "i".try_into().unwrap() });
    let binary = Bson::Binary(Binary { subtype: 0.into(), bytes: vec![1, 2] });
    let only_old = [
        (r#"{"$regex":"a","$options":"i"}"#, regex, Bson::Document(doc! { "$regex": "a", "$options": "i" })),
        (r#"{"$binary":"AQI=","$type":"00"}"#, binary, Bson::Document(doc! { "$binary": "AQI=", "$type": "00" })),
        (r#"{"$date":1500}"#, Bson::DateTime(bson::DateTime::from_millis(1500)), Bson::Document(doc! { "$date": 1500 })),
    ];
    for (text, old, new) in only_old {
        for (modern, value) in [(false, old), (true, new)] {
            let read = options(modern, &format!(r#"{{"a":{text}}}"#));
            assert_eq!(Bson::try_from(read.get("a").unwrap().unwrap()).unwrap(), value, "{text}");
        }
    }
}

#[test]
fn a_word_of_version_2_makes_the_whole_file_modern() {
    let words = [
        r#"{"$numberInt":"1"}"#,
        r#"{"$numberDouble":"1.0"}"#,
        r#"{"$regularExpression":{"pattern":"","options":""}}"#,
        r#"{"$binary":{"base64":"","subType":"00"}}"#,
        r#"{"$symbol":""}"#,
        r#"{"$date":{"$numberLong":"0"}}"#,
    ];
    for word in words {
        let text = format!(r#"{{"options":{{"r":{{"$regex":"a","$options":""}}}},"indexes":[{{"a":[{word}]}}]}}"#);
        let read = Metadata::parse(text.as_bytes()).unwrap();
        assert!(read.options.get_document("r").is_ok(), "{word}");
    }
    let text = r#"{"options":{"r":{"$options":"","$regex":"a"}},"indexes":[{"a":[{"$numberLong":"1"}]}]}"#;
    let read = Metadata::parse(text.as_bytes()).unwrap();
    assert!(read.options.get_regex("r").is_ok());
}

#[test]
fn documents_with_keys_of_queries_stay_documents() {
    let texts = [
        r#"{"$and":[{"a":{"$type":"string"}},{"b":{"$regex":"x"}}]}"#,
        r#"{"$expr":{"$gt":["$a",{"$date":{"$add":["$b",1]}}]}}"#,
        r#"{"$jsonSchema":{"required":["x"],"properties":{"x":{"bsonType":"int"}}}}"#,
        r#"{"$date":true}"#,
        r#"{"$oid":["0123456789abcdef01234567"]}"#,
        r#"{"$numberInt":"1","x":1}"#,
        r#"{"$numberLong":{"$numberLong":null}}"#,
        r#"{"$timestamp":{"t":1}}"#,
        r#"{"$timestamp":{"t":1,"i":"2"}}"#,
        r#"{"$undefined":false}"#,
        r#"{"$minKey":2}"#,
        r#"{"$binary":{"base64":""}}"#,
        r#"{"$code":"f()","$scope":1}"#,
        r#"{"$regularExpression":{"pattern":"","options":"","x":""}}"#,
        r#"{"$dbPointer":{"$ref":"c","$id":"x"}}"#,
        r#"{"$ref":"c","$id":5,"$db":"d"}"#,
    ];
    for text in texts {
        for modern in [true, false] {
            let read = options(modern, &format!(r#"{{"a":{text}}}"#));
            let expected: serde_json::Value = serde_json::from_str(text).unwrap();
            let plain = Bson::try_from(read.get("a").unwrap().unwrap()).unwrap().into_relaxed_extjson();
            assert_eq!(plain, expected);
        }
    }
    // This holds even if the options as a whole look like such a value.
    assert_eq!(options(true, r#"{"$undefined":true}"#), rawdoc! { "$undefined": true });
}

#[test]
fn keys_that_stand_twice_do_so_again() {
    let read = options(true, r#"{"a":{"$numberInt":"1"},"b":true,"a":"x"}"#);
    let names: Vec<&str> = read.iter().map(|e| e.unwrap().0.as_str()).collect();
    assert_eq!(names, ["a", "b", "a"]);
    assert_eq!(error(r#"{"indexes":[],"uuid":"","indexes":[]}"#), "at indexes: it occurs twice");
}

/// A document with every type. Its keys are in byte order, so the order is the same in every
/// writer.
fn every_type() -> RawDocumentBuf {
    let text = |t: &[u8]| [&(t.len() as u32 + 1).to_le_bytes(), t, &[0]].concat();
    let scope = rawdoc! { "x": [1, { "$options": "i", "$regex": "a" }] };
    let scoped = [text(b"f()"), scope.into_bytes()].concat();
    let scoped = [(scoped.len() as u32 + 4).to_le_bytes().to_vec(), scoped].concat();
    let mut elements: Vec<(String, u8, Vec<u8>)> = Vec::new();
    let mut add = |kind: u8, name: &str, value: &[u8]| elements.push((name.to_owned(), kind, value.to_vec()));
    let doubles =
        [0.0, -0.0, 1.0, -500.0, 0.1, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for (number, double) in doubles.into_iter().enumerate() {
        add(0x01, &format!("d{number}"), &double.to_le_bytes());
    }
    for (number, decimal) in ["0", "-0", "1E+3", "-1.50", "NaN", "Infinity", "-Infinity", "9.999E+6144"].into_iter().enumerate() {
        let decimal: bson::Decimal128 = decimal.parse().unwrap();
        add(0x13, &format!("m{number}"), &decimal.bytes());
    }
    for (number, date) in [0, -1, 253_402_300_800_000, i64::MIN, i64::MAX].into_iter().enumerate() {
        add(0x09, &format!("t{number}"), &date.to_le_bytes());
        add(0x12, &format!("l{number}"), &date.to_le_bytes());
    }
    for subtype in [0, 1, 3, 4, 5, 6, 0x80, 0xFF] {
        let value = [&[16, 0, 0, 0, subtype], [7; 16].as_slice()].concat();
        add(0x05, &format!("b{subtype}"), &value);
    }
    add(0x05, "old", &[7, 0, 0, 0, 2, 3, 0, 0, 0, 1, 2, 3]);
    add(0x02, "string", &text("ü\"\\\0\u{1}\u{2028}😀".as_bytes()));
    add(0x03, "document", rawdoc! { "": {}, "a.$b": [[], [1, "x"]] }.as_bytes());
    add(0x03, "operator", rawdoc! { "$options": "i", "$regex": "a" }.as_bytes());
    add(0x07, "id", &[0xAB; 12]);
    add(0x08, "bool", &[1]);
    add(0x0B, "regex", b"^a\"/\0im\0");
    add(0x0C, "pointer", &[text(b"a.b"), vec![3; 12]].concat());
    add(0x0D, "code", &text(b"f()"));
    add(0x0E, "symbol", &text(b"s"));
    add(0x0F, "scoped", &scoped);
    add(0x10, "int", &i32::MIN.to_le_bytes());
    add(0x11, "time", &[0xFF; 8]);
    for (kind, name) in [(0x06, "undefined"), (0x0A, "null"), (0x7F, "max"), (0xFF, "min")] {
        add(kind, name, &[]);
    }
    elements.sort();
    elements.iter().fold(Writer::default(), |w, (name, kind, value)| w.with(*kind, name, value)).raw().unwrap()
}

#[test]
fn what_is_written_is_read_with_the_same_bytes() {
    let document = every_type();
    let uuid = Some(Uuid::from_u128(0x0102_0304));
    let kind = CollectionKind::Collection;
    let text = metadata::write("nä\"me", kind, uuid, &document, [document.as_ref(), document.as_ref()]);
    let read = Metadata::parse(&text).unwrap();
    let expected = Metadata {
        options: document.clone(),
        indexes: vec![document.clone(), document],
        uuid,
        collection: Some("nä\"me".into()),
        kind: Some("collection".into()),
    };
    assert!(read.options.as_bytes() == expected.options.as_bytes(), "{:?} instead of {:?}", read.options, expected.options);
    assert_eq!(read, expected);
}

#[test]
fn what_is_wrong_is_said_with_its_path() {
    let at_key = |value: &str| error(&format!(r#"{{"indexes":[{{}},{{}},{{"key":{{"a":{value}}}}}],"type":"collection"}}"#));
    let wrong = [
        (r#"{"$numberInt":"1.5"}"#, r#".$numberInt: "1.5" is not an int32"#),
        (r#"{"$numberInt":"+5"}"#, r#".$numberInt: "+5" is not an int32"#),
        (r#"{"$numberLong":"9223372036854775808"}"#, r#".$numberLong: "9223372036854775808" is not an int64"#),
        (r#"{"$numberDouble":"inf"}"#, r#".$numberDouble: "inf" is not a double"#),
        (r#"{"$numberDecimal":"x"}"#, r#".$numberDecimal: "x" is not a decimal128"#),
        (r#"{"$oid":"0123"}"#, r#".$oid: "0123" is not an ObjectId"#),
        (r#"{"$date":"today"}"#, r#".$date: "today" is not a date"#),
        (r#"{"$uuid":"1"}"#, r#".$uuid: "1" is not a UUID"#),
        (r#"{"$timestamp":{"t":-1,"i":0}}"#, r#".$timestamp: "-1" is not a number of 32 bits"#),
        (r#"{"$binary":{"base64":"","subType":"100"}}"#, r#".$binary: "100" is not a subtype of a binary value"#),
        (r#"[1,{"b\u0000":1}]"#, "[1].b\0: it has a NUL where BSON allows none"),
    ];
    for (value, what) in wrong {
        assert_eq!(at_key(value), format!("at indexes[2].key.a{what}"));
    }
    assert!(at_key(r#"{"$binary":{"base64":"?","subType":"00"}}"#).contains("is not base64"));
    assert_eq!(error(r#"{"options":[]}"#), "at options: expected an object, found an array");
    assert_eq!(error(r#"{"indexes":[{},1]}"#), "at indexes[1]: expected an object, found the number 1");
    assert_eq!(error(r#"{"uuid":"12"}"#), "at uuid: expected 32 hexadecimal digits, found \"12\"");
    assert_eq!(error(r#"{"type":{}}"#), "at type: expected a string, found an object");
    assert_eq!(error("[]"), "at line 1, column 1: expected an object, found an array");
}

#[test]
fn a_document_that_grows_too_long_is_refused() {
    let values = "{},".repeat(1_700_000);
    let text = format!(r#"{{"options":{{"a":[{values}{{}}]}}}}"#);
    assert!(error(&text).contains("longer than 16793600 bytes"), "{}", error(&text));
}

#[test]
fn the_versions_of_a_dump_are_read() {
    let read = Versions::parse(br#"{"ServerVersion":"7.0.16","ToolVersion":"100.13.0","More":[1]}"#).unwrap();
    assert_eq!(read, Versions { server: "7.0.16".into(), tool: "100.13.0".into() });
    assert_eq!(Versions::parse(b"\n").unwrap(), Versions::default());
    assert_eq!(Versions::parse(b"{}").unwrap(), Versions::default());
    for wrong in ["[]", r#"{"ServerVersion":7}"#, r#"{"ServerVersion":"#] {
        Versions::parse(wrong.as_bytes()).unwrap_err();
    }
}

#[test]
fn fields_keep_their_order_and_values_their_types() {
    let document = doc! {
        "z": { "b": 1, "a": -1i64 }, "é\"": [1.5, "x\n", true, Bson::Null], "t": Timestamp { time: 5, increment: 6 },
        "r": Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() },
        "u": Binary { subtype: BinarySubtype::Generic, bytes: vec![1] },
        "c": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code: "f".into(), scope: doc! { "y": 1, "x": 2 } }),
    };
    let text = canonical(&RawDocumentBuf::try_from(&document).unwrap()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"z":{"b":{"$numberInt":"1"},"a":{"$numberLong":"-1"}},"é\"":[{"$numberDouble":"1.5"},"x\n",true,null],"#,
            r#""t":{"$timestamp":{"i":6,"t":5}},"r":{"$regularExpression":{"options":"i","pattern":"^a"}},"#,
            r#""u":{"$binary":{"base64":"AQ==","subType":"00"}},"c":{"$code":"f","$scope":{"y":{"$numberInt":"1"},"x":{"$numberInt":"2"}}}}"#
        )
    );
}

#[test]
fn only_what_json_keeps_is_faithful() {
    for kept in [
        rawdoc! {},
        rawdoc! { "capped": true, "size": 4096, "max": 5i64, "x": 1.5, "nan": f64::NAN },
        rawdoc! { "pipeline": [{ "$match": { "n": { "$gt": 1 }, "name": { "$regex": "^a", "$options": "i" } } }] },
        rawdoc! { "validator": { "$jsonSchema": { "required": ["a"] } } },
    ] {
        assert!(is_faithful(&kept), "{kept:?}");
    }
    assert!(!is_faithful(&rawdoc! { "validator": { "a": { "$numberInt": "1" } } }));
    assert!(!is_faithful(&rawdoc! { "pipeline": [{ "$set": { "a": { "$date": "x" } } }] }));
    let twice = Writer::default().with(0x10, "a", &[1, 0, 0, 0]).with(0x10, "a", &[2, 0, 0, 0]).raw().unwrap();
    assert!(!is_faithful(&twice));
    let latin = Writer::default().with(0x02, "a", &[2, 0, 0, 0, 0xE9, 0]).raw().unwrap();
    assert!(!is_faithful(&latin) && canonical(&latin).is_none());
    let mut deep = rawdoc! { "end": 1 };
    for _ in 0..100 {
        deep = rawdoc! { "d": deep };
    }
    assert!(canonical(&deep).is_none());
}
