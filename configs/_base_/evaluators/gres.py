# One, several or no targets: gRefCOCO's figures by ReLA's protocol, and output health.
val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]
test_evaluator = val_evaluator
