use super::*;

const APPROVED: Outcome<'_> = Outcome {
    response_code: "00",
    approval_code: Some("A1B2C3"),
    amount: None,
    additional_amounts: None,
};
const DECLINED: Outcome<'_> = Outcome {
    response_code: "61",
    approval_code: None,
    ..APPROVED
};

#[test]
fn the_golden_answers_are_answers_to_the_golden_requests() {
    let check = |request: &str, outcome: &Outcome<'_>, answer: &str| {
        let reply = Golden::case(request).message().reply(outcome).unwrap();
        assert_eq!(reply, Golden::case(answer).message(), "{answer}");
    };
    let acknowledged = Outcome {
        approval_code: None,
        ..APPROVED
    };
    let partial = Outcome {
        response_code: "10",
        amount: Some(50_00),
        additional_amounts: Some("0057840D000000012345"),
        ..APPROVED
    };
    for request in ["a purchase", "a purchase, repeated"] {
        check(request, &APPROVED, "an approval");
        check(request, &partial, "a partial approval");
        check(request, &DECLINED, "a decline");
    }
    for request in ["an advice", "an advice, repeated"] {
        check(request, &acknowledged, "the answer to an advice");
    }
    for request in ["a reversal", "a reversal, repeated"] {
        check(request, &acknowledged, "the answer to a reversal");
    }
    for request in ["a reversal advice", "a reversal advice, repeated"] {
        check(request, &acknowledged, "the answer to a reversal advice");
    }
    check("an echo test", &acknowledged, "the answer to an echo test");
}

#[test]
fn an_answer_has_what_is_echoed_and_nothing_else() {
    let reply = Golden::case("every field")
        .message()
        .reply(&DECLINED)
        .unwrap();
    let fields: Vec<u8> = reply.fields().collect();
    assert_eq!(
        fields,
        [2, 3, 4, 7, 11, 12, 13, 32, 33, 37, 39, 41, 42, 49, 70, 90]
    );
    // Neither 38 nor 39 of the request comes back.
    assert_eq!((reply.text(38), reply.text(39)), (None, Some("61")));
    let reply = Message::new(Mti::NetworkRequest).reply(&DECLINED).unwrap();
    assert_eq!(reply.fields().collect::<Vec<u8>>(), [39]);
}

#[test]
fn answers_are_not_answered() {
    for mti in Mti::ALL {
        let reply = Message::new(mti).reply(&APPROVED);
        match mti.response() {
            Some(response) => assert_eq!(reply.unwrap().mti(), response),
            None => assert_eq!(reply, Err(ReplyError::Unanswered { mti })),
        }
    }
    let error = ReplyError::Unanswered {
        mti: Mti::NetworkResponse,
    };
    assert_eq!(error.to_string(), "a message of type 0810 is not answered");
}

#[test]
fn an_outcome_that_fits_no_field_is_refused() {
    let request = Golden::case("a purchase").message();
    for code in ["", "A1B2C", "A1B2C3D", "A1B2C ", "A1-2C3", "A1B2\u{e9}"] {
        let outcome = Outcome {
            approval_code: Some(code),
            ..APPROVED
        };
        assert_eq!(
            request.reply(&outcome),
            Err(ReplyError::ApprovalCode),
            "{code}"
        );
    }
    for amount in [-1, i64::MIN, 1_000_000_000_000, i64::MAX] {
        let outcome = Outcome {
            amount: Some(amount),
            ..APPROVED
        };
        assert_eq!(request.reply(&outcome), Err(ReplyError::Amount), "{amount}");
    }
    for amount in [0, 1, 999_999_999_999] {
        let outcome = Outcome {
            amount: Some(amount),
            ..APPROVED
        };
        assert_eq!(request.reply(&outcome).unwrap().amount(4), Some(amount));
    }
    for code in ["", "0", "000", "0-"] {
        let outcome = Outcome {
            response_code: code,
            ..APPROVED
        };
        let error = request.reply(&outcome).unwrap_err();
        assert!(matches!(error, ReplyError::Field(_)), "{code}: {error}");
    }
    let outcome = Outcome {
        additional_amounts: Some(""),
        ..APPROVED
    };
    let error = request.reply(&outcome).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field 54 has a length of 0, it should be 1 to 240"
    );
}
