-- Cards, and what the formats of platforms say more of a payment.

-- Whose card it is, by the token that a bank's messages name. Never a card number. Read in the order
-- of its bytes.
create table cards (
    bank text collate "C" not null,
    token text collate "C" not null,
    shopper_id bigint not null,
    primary key (bank, token)
);

-- Card, network merchant id, terminal, the payment it adds to, what was asked for where less was
-- approved; null where the bank said none of it.
alter table authorizations add column particulars jsonb;

-- Zero asks whether a card is good, and charges nothing.
alter table authorizations drop constraint authorizations_amount_check;
alter table authorizations add constraint authorizations_amount_check check (amount >= 0);

-- What kind of movement it was, and where the log has it.
alter table settlements add column kind text not null default 'capture'
    check (kind in ('capture', 'force_post', 'refund'));
create index settlements_payment on settlements (transaction_id)
    where transaction_id is not null;
