// Run by node's own test runner.
import assert from 'node:assert';
import test from 'node:test';
import { sacks } from '../src/sacks.js';

test('a sack that is not full counts', () => {
  assert.equal(sacks(12, 5), '3 sacks');
  assert.equal(sacks(5, 5), '1 sack');
});
