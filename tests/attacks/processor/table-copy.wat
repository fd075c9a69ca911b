;; Copies 100,000 elements of a table onto themselves, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(table $t 100000 funcref)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (table.copy (i32.const 0) (i32.const 1) (i32.const 99999)) (br $again)) unreachable)
