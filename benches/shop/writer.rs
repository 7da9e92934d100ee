//! Clients that write to a source: inserts, updates and deletes, alone and in transactions.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// How many collections there are, in the database `src`.
pub const COLLECTIONS: usize = 4;
const WRITERS: usize = 8;

/// The name of a collection.
pub fn name(n: usize) -> String {
    format!("c{n}")
}

/// Lets eight clients write so many operations.
pub async fn write(client: &Client, operations: usize) {
    let writers = (0..WRITERS).map(|n| tokio::spawn(Writer::new(n, client.clone()).write(operations / WRITERS)));
    for done in futures::future::join_all(writers).await {
        done.unwrap();
    }
}

/// One of the source's clients, with documents of its own.
struct Writer {
    number: usize,
    client: Client,
    rng: StdRng,
    made: u32,
    /// The `_id`s of its documents in each collection, in the order of their creation.
    ids: [Vec<Bson>; COLLECTIONS],
}

impl Writer {
    fn new(number: usize, client: Client) -> Self {
        Self { number, client, rng: StdRng::seed_from_u64(number as u64), made: 0, ids: [const { Vec::new() }; COLLECTIONS] }
    }

    async fn write(mut self, operations: usize) {
        let (mut done, mut commands) = (0, 0);
        while done < operations {
            let size = self.rng.random_range(1..=20).min(operations - done);
            let which = self.rng.random_range(0..COLLECTIONS);
            let command = self.command(which, size);
            let database = self.client.database("src");
            commands += 1;
            let reply = if commands % 20 == 0 {
                let mut session = self.client.start_session().await.unwrap();
                session.start_transaction().await.unwrap();
                let reply = database.run_command(command).session(&mut session).await.unwrap();
                session.commit_transaction().await.unwrap();
                reply
            } else {
                database.run_command(command).await.unwrap()
            };
            assert!(!reply.contains_key("writeErrors"), "{reply}");
            done += usize::try_from(reply.get_i32("n").unwrap()).unwrap();
        }
    }

    fn command(&mut self, which: usize, size: usize) -> Document {
        let name = name(which);
        match self.rng.random_range(0..100) {
            share if share < 45 || self.ids[which].len() < size => {
                let documents: Vec<Document> = (0..size).map(|_| self.document(which)).collect();
                doc! { "insert": name, "documents": documents }
            }
            share if share < 85 => {
                let updates: Vec<Document> = (0..size)
                    .map(|_| {
                        let at = self.one_of(which);
                        let id = self.ids[which][at].clone();
                        let number = self.rng.random_range(0..1_000_000);
                        let change = match self.rng.random_range(0..4) {
                            0 => self.fields(),
                            1 => doc! { "$set": { "status": "changed", "by.name": number } },
                            2 => doc! { "$inc": { "n": number }, "$set": { format!("f{}", number % 8): true } },
                            _ => doc! { "$push": { "list": { "$each": [number], "$slice": -5 } } },
                        };
                        doc! { "q": { "_id": id }, "u": change }
                    })
                    .collect();
                doc! { "update": name, "updates": updates }
            }
            _ => {
                let deletes: Vec<Document> = (0..size)
                    .map(|_| {
                        let at = self.one_of(which);
                        doc! { "q": { "_id": self.ids[which].remove(at) }, "limit": 1 }
                    })
                    .collect();
                doc! { "delete": name, "deletes": deletes }
            }
        }
    }

    fn one_of(&mut self, which: usize) -> usize {
        let count = self.ids[which].len();
        let from = if self.rng.random_bool(0.7) { 0 } else { count.saturating_sub(200) };
        self.rng.random_range(from..count)
    }

    fn document(&mut self, which: usize) -> Document {
        self.made += 1;
        let id = match which {
            0 => Bson::Int64((self.number as i64) << 32 | i64::from(self.made)),
            1 => format!("{:x}-{}", self.made.wrapping_mul(0x9E37_79B1), self.number).into(),
            _ => ObjectId::new().into(),
        };
        self.ids[which].push(id.clone());
        let mut document = doc! { "_id": id };
        document.extend(self.fields());
        document
    }

    fn fields(&mut self) -> Document {
        let words = ["new", "paid", "shipped", "done"];
        let text: String = (0..self.rng.random_range(20..380)).map(|_| self.rng.random_range('a'..='z')).collect();
        doc! { "n": self.rng.random_range(0..1000), "status": *words.choose(&mut self.rng).unwrap(), "text": text, "by": { "name": 1 } }
    }
}
