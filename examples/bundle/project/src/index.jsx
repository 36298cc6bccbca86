// The page: a barn counts its sacks.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { sacks } from './sacks.js';

createRoot(document.body).render(<p>{sacks(12, 5)}</p>);
