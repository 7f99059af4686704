//! Users that are changed and read: no acknowledged change is lost or made twice, and nobody reads what is older than what he
//! knows of.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidings_client::{Caller, Error};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{Consistency, CreateUserRequest, GetUserRequest, UpdateUserRequest, User};

use super::{Account, Refused, Work};
use crate::service::Service;

const USERS: usize = 20;
/// One call in so many changes something.
const WRITES: u64 = 4;
/// How long it may take to look at what there is at the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The work.
pub(crate) struct Users {
    caller: Caller,
    patient: Caller,
    all: Vec<Known>,
    account: Mutex<Account>,
}

/// What is known of one user.
struct Known {
    /// Who changes it: one at a time.
    pen: tokio::sync::Mutex<Pen>,
    /// The version that was acknowledged last.
    newest: AtomicI64,
    /// What each version was acknowledged to hold.
    names: Mutex<HashMap<i64, String>>,
}

/// Who changes a user, and knows what it should be.
struct Pen {
    version: i64,
    /// What was asked for on top of this version, and may have been done, or may be done yet.
    unsure: Vec<String>,
}

impl Users {
    /// Users who are called by `caller`.
    pub(crate) async fn new(caller: Caller, instances: &[Service]) -> Self {
        let patient = super::caller(instances, PATIENCE);
        for number in 0..USERS {
            let user = User { id: id(number), display_name: "first".to_owned(), ..User::default() };
            let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
            let send = async |channel, request| UserServiceClient::new(channel).create_user(request).await;
            patient.call("CreateUser", &request, send).await.unwrap();
        }
        let new = || Known {
            pen: tokio::sync::Mutex::new(Pen { version: 1, unsure: Vec::new() }),
            newest: AtomicI64::new(1),
            names: Mutex::new(HashMap::from([(1, "first".to_owned())])),
        };
        Self { caller, patient, all: (0..USERS).map(|_| new()).collect(), account: Mutex::default() }
    }

    async fn get(caller: &Caller, number: usize, min_version: i64, consistency: Consistency) -> Result<User, Error> {
        let request = GetUserRequest { id: id(number), min_version, consistency: consistency.into() };
        let send = async |channel, request| UserServiceClient::new(channel).get_user(request).await;
        Ok(caller.call("GetUser", &request, send).await?.user.unwrap_or_default())
    }

    /// Reads, and knows how old the answer may be at most.
    async fn read(&self, number: usize) -> Result<(), Error> {
        let least = self.all[number].newest.load(Ordering::SeqCst);
        let user = Self::get(&self.caller, number, least, Consistency::Cached).await?;
        self.note(|account| account.gone_back += u64::from(user.version < least));
        self.compare(number, &user);
        Ok(())
    }

    /// A version holds what it was acknowledged to hold.
    fn compare(&self, number: usize, user: &User) {
        let other =
            self.all[number].names.lock().unwrap().get(&user.version).is_some_and(|name| *name != user.display_name);
        self.note(|account| account.lost += u64::from(other));
    }

    async fn write(&self, number: usize, pen: &mut Pen, name: String) -> Result<(), Error> {
        if !pen.unsure.is_empty() {
            let user = Self::get(&self.caller, number, 0, Consistency::Strong).await?;
            self.settle(number, pen, &user);
        }
        let request = UpdateUserRequest {
            user: Some(User { id: id(number), display_name: name.clone(), ..User::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
            expected_version: pen.version,
        };
        pen.unsure.push(name);
        let send = async |channel, request| UserServiceClient::new(channel).update_user(request).await;
        let user = self.caller.call("UpdateUser", &request, send).await?.user.unwrap_or_default();
        self.settle(number, pen, &user);
        self.note(|account| account.acknowledged += 1);
        Ok(())
    }

    /// Learns what became of changes.
    fn settle(&self, number: usize, pen: &mut Pen, user: &User) {
        let next = user.version == pen.version + 1;
        self.note(|account| {
            account.lost += u64::from(user.version < pen.version || next && !pen.unsure.contains(&user.display_name));
            account.duplicated += u64::from(user.version > pen.version + 1);
        });
        self.compare(number, user);
        if user.version != pen.version {
            // Each change names the version that it was made on: what was not done by now never will be.
            pen.unsure.clear();
            pen.version = user.version;
        }
        self.all[number].names.lock().unwrap().insert(user.version, user.display_name.clone());
        self.all[number].newest.fetch_max(user.version, Ordering::SeqCst);
    }

    fn note(&self, note: impl FnOnce(&mut Account)) {
        note(&mut self.account.lock().unwrap());
    }
}

impl Work for Users {
    const NAME: &'static str = "user";

    async fn once(&self, number: u64) -> Result<(), Refused> {
        let user = usize::try_from(number).unwrap() % USERS;
        let done = match self.all[user].pen.try_lock() {
            Ok(mut pen) if number.is_multiple_of(WRITES) => self.write(user, &mut pen, format!("name-{number}")).await,
            _ => self.read(user).await,
        };
        done.map_err(|error| Refused::from(&error))
    }

    fn history(&self) -> Vec<String> {
        let of = |(number, known): (usize, &Known)| format!("{} {:?}", id(number), known.names.lock().unwrap());
        self.all.iter().enumerate().map(of).collect()
    }

    async fn account(&self) -> Account {
        for (number, known) in self.all.iter().enumerate() {
            let user = Self::get(&self.patient, number, 0, Consistency::Strong).await.unwrap();
            let mut pen = known.pen.lock().await;
            self.settle(number, &mut pen, &user);
            let cached = Self::get(&self.patient, number, user.version, Consistency::Cached).await.unwrap();
            self.note(|account| account.gone_back += u64::from(cached != user));
        }
        *self.account.lock().unwrap()
    }
}

fn id(number: usize) -> String {
    format!("user-{number}")
}
