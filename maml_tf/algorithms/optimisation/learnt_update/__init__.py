"""The LSTM meta-learner: the update itself is learnt."""
